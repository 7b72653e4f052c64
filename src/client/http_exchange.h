// One HTTP/1.1 request and its answer, on one socket. No call blocks: the owner polls the descriptor and calls
// advance() when it is ready, so that one thread can run thousands of exchanges.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "base/result.h"
#include "net/unique_fd.h"

namespace chorus {

class HttpExchange {
 public:
  using OnBody = std::function<Result<void>(std::string_view)>;

  // `socket`: connected, or on its way there. `request`: head and body; the server is asked to close behind its answer.
  // `on_body` gets the pieces of a body of status 200, as they come.
  HttpExchange(UniqueFd socket, std::string request, OnBody on_body);
  HttpExchange(HttpExchange&&) noexcept;
  HttpExchange& operator=(HttpExchange&&) = delete;
  ~HttpExchange();

  int fd() const { return socket_.get(); }
  bool wants_to_write() const { return sent_ < request_.size(); }  // else it waits for what comes
  // Sends or receives what the socket takes or has now. True: the answer is whole. unavailable: no connection, or it
  // broke; what on_body fails with; for a status other than 200 invalid_argument (4xx) or unavailable, with the
  // server's words. Not to be called again after either.
  Result<bool> advance();

 private:
  class Answer;
  Result<void> send_some();

  UniqueFd socket_;
  std::string request_;
  std::size_t sent_ = 0;
  bool connected_ = false;
  std::unique_ptr<Answer> answer_;
};

}  // namespace chorus

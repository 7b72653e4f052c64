// From bytes to requests: HTTP/1.1 (RFC 9112) read strictly, HTTP/1.0 as far as it agrees. Boost.Beast parses; what it
// would accept and two servers might read differently is refused here: obsolete line folding, a repeated or listed
// Content-Length, any Transfer-Encoding but one "chunked", one in HTTP/1.0, no or several Host fields, a target that is
// no path. After a refusal nothing more of the connection can be trusted: its reader answers once and closes.
//
// Pure: no socket, no clock. Holds at most a head, or a body and a chunk's head, and what was fed beyond.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "server/http/limits.h"
#include "server/http/request.h"

namespace chorus {

class RequestReader {
 public:
  enum class Step : std::uint8_t {
    needs_bytes,  // feed() more
    head,         // request() is whole but for its body; told once a request
    request,      // take() it
    refused,      // see refusal(); told from then on
  };
  enum class Phase : std::uint8_t { idle, head, body, whole };  // idle: no byte of a request
  struct Refusal {
    int status = 400;
    std::string message;  // what is wrong, and the limit
  };

  explicit RequestReader(const HttpLimits& limits);
  ~RequestReader();

  void feed(std::string_view bytes);
  Step advance();  // as far as it goes with what was fed
  Phase phase() const;
  const HttpRequest& request() const;
  HttpRequest take();  // then advance() goes on with the next one
  const Refusal& refusal() const;
  std::size_t body_bytes() const;    // of the body that have come
  std::size_t unread_bytes() const;  // fed and not looked at
  bool expects_continue() const;     // its client waits for "100 Continue" before it sends the body

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace chorus

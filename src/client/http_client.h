// Requests to an HTTP/1.1 server, one a connection, over TCP or a Unix socket. One thread; waits for what it asks for,
// every wait with a deadline, and ends them when it is told to stop.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "client/endpoint.h"
#include "net/unique_fd.h"

namespace chorus {

// Between two pieces of an answer; the first one waits in the server's queue.
inline constexpr int answer_timeout_ms = 600'000;

struct HttpCall {
  std::string method = "GET";
  std::string target;
  std::string body;                                       // JSON; "": none
  std::function<bool()> stop = nullptr;                   // asked ten times a second; true: `cancelled`
  std::function<Result<void>(std::string_view)> on_body;  // pieces of a body of status 200, as they come
};

// deadline_exceeded, unavailable (no connection, or it broke), cancelled, what on_body fails with; and for a status
// other than 200: invalid_argument (4xx) or unavailable, with the server's words.
Result<void> call(const Endpoint& endpoint, const HttpCall& call);

// The whole answer to a GET (`body` empty) or a POST. invalid_argument: it is longer than 16 MiB; else call()'s errors.
Result<std::string> fetch(const Endpoint& endpoint, const std::string& target, const std::string& body,
                          const std::function<bool()>& stop);

// What call() is made of, for those who have many requests under way (client/http_exchange.h).
// `stop` is asked ten times a second while it connects, to the first address that takes it. unavailable: none does;
// deadline_exceeded, cancelled.
Result<UniqueFd> connect_to(const Endpoint& endpoint, const std::function<bool()>& stop);
// Head and body. `headers`: more lines of the head, without their ends.
std::string request_text(const Endpoint& endpoint, const std::string& method, const std::string& target,
                         const std::string& body, const std::vector<std::string>& headers = {});

}  // namespace chorus

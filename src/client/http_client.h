// Requests to an HTTP/1.1 server, one a connection, over TCP or a Unix socket. One thread; waits for what it asks for,
// every wait with a deadline, and ends them when it is told to stop.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace chorus {

struct Endpoint {
  std::string host;  // a name or an address
  int port = 0;
  std::string path;  // of a Unix socket, in the place of both
  std::string key;   // sent as a bearer token; "": none
  std::string host_field() const;
  std::string text() const;  // as a URL
};

bool is_url(std::string_view text);
// http://HOST[:PORT][/] or unix:PATH. invalid_argument: anything else; the message says what to do about https.
Result<Endpoint> parse_url(std::string_view url);

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

}  // namespace chorus

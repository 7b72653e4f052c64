// Where a server is. Pure.
#pragma once

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

}  // namespace chorus

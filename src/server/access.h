// Who may ask: API keys and the Host field.
//
// Keys are kept as SHA-256 hashes and compared in constant time. Where the server listens on the loopback alone, the
// Host field must name it: a page in a browser that has its own name point to 127.0.0.1 (DNS rebinding) is refused.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/fields.h"
#include "base/result.h"
#include "server/http/request.h"
#include "server/http/response.h"

namespace chorus {

struct ApiKeys {
  // A key a line; blank lines and lines that begin with # are left out. Errors: no such file, no key in it, a key with
  // white space or of more than 1024 bytes.
  static Result<ApiKeys> read_file(const std::string& path);
  Result<void> add(std::string_view key);
  bool empty() const { return hashes.empty(); }
  bool contains(std::string_view key) const;
  static constexpr auto fields(auto& self, auto&& visit) { return visit(self.hashes); }

  std::vector<std::string> hashes;  // 32 bytes each
};

struct AccessRules {
  ApiKeys keys;                    // none: nobody is asked for one
  std::vector<std::string> hosts;  // names that the Host field may have, without a port; none: any
  static constexpr auto fields(auto& self, auto&& visit) { return visit(self.keys, self.hosts); }
};
// The names of a server that listens on the loopback, under the name `host`.
std::vector<std::string> loopback_hosts(const std::string& host);

// Why the request is refused: 421 for its Host, 401 for its key. `open`: of a route that needs no key.
std::optional<HttpResponse> refuse_access(const AccessRules& rules, const HttpRequest& request, bool open);

}  // namespace chorus

// One HTTP request as the application sees it.
#pragma once

#include <algorithm>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace chorus {

struct HttpRequest {
  std::string method;  // "GET", as it came
  std::string path;    // of the target, up to a "?"; as it came: nothing is decoded
  std::string query;   // behind it
  std::vector<std::pair<std::string, std::string>> fields;  // names in lower case, as they came otherwise; no trailers
  std::string body;
  bool keep_alive = true;  // the client would send another one
  bool http_1_0 = false;   // its answers have no chunks
  bool has_body = false;   // one was announced

  // The value of the first field of this name (in lower case).
  std::optional<std::string_view> field(std::string_view name) const {
    const auto found = std::ranges::find_if(fields, [name](const auto& field) { return field.first == name; });
    if (found == fields.end()) return std::nullopt;
    return std::string_view(found->second);
  }
};

}  // namespace chorus

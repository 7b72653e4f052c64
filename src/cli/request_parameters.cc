#include "cli/request_parameters.h"

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>

namespace chorus {

Result<void> RequestParameters::set(const std::string& name, const std::string& value) {
  static constexpr std::array<std::string_view, 6> own = {"model",  "messages",       "prompt",
                                                          "stream", "stream_options", "n"};
  if (std::ranges::find(own, name) != own.end()) {
    return fail(ErrorCode::invalid_argument, "{} is this program's own: it cannot be set", name);
  }
  if (name.empty()) {
    return fail(ErrorCode::invalid_argument, "a parameter lacks its name: give one as in temperature 0.5");
  }
  if (value.empty()) {
    values_.erase(name);
    return {};
  }
  Result<Json> parsed = parse_json(value);
  values_[name] = parsed.ok() ? std::move(*parsed) : Json(value);
  return {};
}

Result<void> RequestParameters::set_all(const std::vector<std::string>& settings) {
  for (const std::string& setting : settings) {
    const std::size_t equals = setting.find('=');
    if (equals == setting.npos) return fail(ErrorCode::invalid_argument, "--set {}: give NAME=VALUE", setting);
    CHORUS_TRY_VOID(set(setting.substr(0, equals), setting.substr(equals + 1)));
  }
  return {};
}

}  // namespace chorus

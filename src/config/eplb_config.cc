#include "config/eplb_config.h"

#include <algorithm>
#include <array>
#include <string_view>

#include <nlohmann/json.hpp>

#include "config/config_fields.h"
#include "config/nearest_name.h"

namespace chorus {
namespace {

constexpr std::array names = {"window_size", "step_interval", "num_redundant_experts", "log_balancedness"};
constexpr int steps_max = 1 << 30;
constexpr int window_max = 1 << 20;
constexpr int redundant_max = 1 << 16;

}  // namespace

Result<EplbConfig> parse_eplb_config(const std::string& text) {
  EplbConfig config;
  if (text.empty()) return config;
  const std::string where = "--eplb-config";
  auto document = parse_json(text);
  if (!document.ok()) return with_context(document.error(), where);
  if (!document->is_object()) return fail(ErrorCode::invalid_argument, "{}: not a JSON object", where);
  for (const auto& [name, value] : document->items()) {
    if (std::ranges::find(names, std::string_view(name)) != names.end()) continue;
    const std::vector<std::string> known(names.begin(), names.end());
    const auto nearest = nearest_name(name, known);
    return fail(ErrorCode::invalid_argument, "{}: unknown field \"{}\"; {}", where, name.substr(0, 100),
                nearest ? fmt::format("did you mean {}?", *nearest)
                        : "there are window_size, step_interval, num_redundant_experts and log_balancedness");
  }
  ConfigFields fields(*document, where);
  config.window_size = static_cast<int>(fields.integer_or("window_size", 1, window_max, config.window_size));
  config.step_interval = static_cast<int>(fields.integer_or("step_interval", 1, steps_max, config.step_interval));
  config.num_redundant_experts =
      static_cast<int>(fields.integer_or("num_redundant_experts", 0, redundant_max, config.num_redundant_experts));
  config.log_balancedness = fields.flag_or("log_balancedness", config.log_balancedness);
  CHORUS_TRY_VOID(fields.finish());
  return config;
}

}  // namespace chorus

#include "frontend/tokenizer_eos.h"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

namespace chorus {

Result<void> add_tokenizer_eos(const Tokenizer& tokenizer, ModelConfig* model) {
  const std::filesystem::path path = std::filesystem::path(model->directory) / "tokenizer_config.json";
  if (!std::filesystem::exists(path)) return {};
  CHORUS_TRY(const Json config, read_json_file(path.string()));
  if (!config.is_object()) return fail(ErrorCode::invalid_argument, "{}: not a JSON object", path.string());
  const auto own = tokenizer.token_to_id(special_token_text(config, "eos_token"));
  if (!own) return {};
  model->eos_token_id = own;
  auto& ids = model->eos_token_ids;
  const auto place = std::ranges::lower_bound(ids, *own);
  if (place == ids.end() || *place != *own) ids.insert(place, *own);
  return {};
}

std::string special_token_text(const Json& config, const char* name) {
  const auto found = config.find(name);
  if (found == config.end()) return "";
  if (found->is_string()) return found->get<std::string>();
  if (found->is_object() && found->contains("content") && (*found)["content"].is_string())
    return (*found)["content"].get<std::string>();
  return "";
}

}  // namespace chorus

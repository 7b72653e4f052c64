#include "config/model_config.h"

#include <fmt/ranges.h>
#include <sys/stat.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string_view>

#include "base/ascii.h"
#include "base/check.h"
#include "config/model_fields.h"
#include "config/nearest_name.h"
#include "config/quantization_config.h"
#include "gguf/model_text.h"

namespace chorus {
namespace {

// The architecture whose name is nearest to a model_type: "qwen2_moe" to "Qwen2MoeForCausalLM".
std::optional<std::string> nearest_architecture(std::string model_type, std::span<const FamilyReader> families) {
  std::erase(model_type, '_');
  std::vector<std::string> stems;
  for (const FamilyReader& family : families) {
    stems.push_back(ascii_lower(std::string(family.architecture.substr(0, family.architecture.find("For")))));
  }
  const auto nearest = nearest_name(model_type, stems);
  if (!nearest) return std::nullopt;
  const auto place = static_cast<std::size_t>(std::find(stems.begin(), stems.end(), *nearest) - stems.begin());
  return std::string(families[place].architecture);
}

// The values that vLLM takes (0.32, ModelConfig.get_diff_sampling_param), which asks of each whether it is there and
// never looks at do_sample. The bounds are those of a request.
void read_sampling_defaults(ConfigFields* fields, ModelConfig* model) {
  constexpr int sampling_tokens_max = 1 << 24;
  model->default_temperature = fields->number("temperature", 0, 1000);
  model->default_top_p = fields->number("top_p", 0, 1);
  if (model->default_top_p == 0.0) fields->refuse_value("top_p", *fields->find("top_p"), "a number above 0, at most 1");
  model->default_min_p = fields->number("min_p", 0, 1);
  model->default_presence_penalty = fields->number("presence_penalty", -2, 2);
  model->default_frequency_penalty = fields->number("frequency_penalty", -2, 2);
  model->default_repetition_penalty = fields->number("repetition_penalty", 0.01, 100);
  model->default_top_k = fields->whole_number("top_k", -1, sampling_tokens_max);
  model->default_max_tokens = fields->whole_number("max_new_tokens", 1, sampling_tokens_max);
}

bool exists(const std::string& path) {
  struct stat status {};
  return ::stat(path.c_str(), &status) == 0;
}

// A config file is small; a larger one is not one.
constexpr std::size_t config_bytes_max = 16U << 20;

Result<void> read_generation_config(const std::string& directory, bool required, bool sampling, ModelConfig* model) {
  const std::string path = model_text_path(directory, "generation_config.json");
  CHORUS_TRY(const auto document, read_model_object(directory, "generation_config.json", config_bytes_max));
  if (!document) {
    if (!required) return {};
    return fail(ErrorCode::not_found, "no {}: --generation-config takes auto, chorus or a directory that has one",
                path);
  }
  ConfigFields fields(*document, path);
  if (auto ids = read_token_ids(&fields, "eos_token_id"); !ids.empty()) model->eos_token_ids = std::move(ids);
  if (auto ids = read_token_ids(&fields, "bos_token_id"); !ids.empty()) model->bos_token_ids = std::move(ids);
  if (sampling) read_sampling_defaults(&fields, model);
  return fields.finish();
}

Result<std::string> read_architecture(const std::string& path, std::span<const FamilyReader> families,
                                      ConfigFields* fields) {
  const auto names = fields->texts("architectures", 64);
  CHORUS_TRY_VOID(fields->finish());
  if (!names.empty()) return names.front();
  std::vector<std::string> known;
  for (const FamilyReader& family : families) known.emplace_back(family.architecture);
  const std::string model_type = fields->text("model_type").value_or("");
  const auto nearest = nearest_architecture(model_type, families);
  return fail(ErrorCode::invalid_argument,
              "{}: architectures is missing or empty{}; needed: a list with one of {}, such as [\"{}\"]", path,
              model_type.empty() ? "" : fmt::format(" (model_type is \"{}\")", model_type.substr(0, 40)),
              fmt::join(known, ", "), nearest.value_or("LlamaForCausalLM"));
}

}  // namespace

Result<ModelConfig> read_model_config(const std::string& directory, const std::string& generation_config,
                                      std::span<const FamilyReader> families) {
  if (!exists(directory)) {
    return fail(ErrorCode::not_found,
                "no such model directory: {} (a Hugging Face directory with config.json, or a .gguf file, is needed)",
                directory);
  }
  const std::string path = model_text_path(directory, "config.json");
  CHORUS_TRY(const auto document, read_model_object(directory, "config.json", config_bytes_max));
  if (!document) {
    return fail(ErrorCode::not_found, "no config.json in {}: give a Hugging Face model directory or a .gguf file",
                directory);
  }
  ConfigFields fields(*document, path);
  ModelConfig model;
  model.directory = directory;
  CHORUS_TRY(model.architecture, read_architecture(path, families, &fields));
  model.model_type = fields.text("model_type").value_or("");
  CHORUS_TRY_VOID(read_quantization(path, fields, &model));
  model.bos_token_ids = read_token_ids(&fields, "bos_token_id");
  model.eos_token_ids = read_token_ids(&fields, "eos_token_id");
  const auto family = std::ranges::find(families, model.architecture, &FamilyReader::architecture);
  if (family != families.end()) {
    CHORUS_TRY_VOID(family->read(&fields, &model));
  } else {
    read_sizes_that_are_there(&fields, &model);
  }
  CHORUS_TRY_VOID(fields.finish());
  const bool own_directory = generation_config != "auto" && generation_config != "chorus";
  CHORUS_TRY_VOID(read_generation_config(own_directory ? generation_config : directory, own_directory,
                                         generation_config != "chorus", &model));
  if (model.eos_token_ids.size() == 1) model.eos_token_id = model.eos_token_ids.front();
  return model;
}

double ModelConfig::own(std::string_view name) const {
  const auto found = std::ranges::find(own_numbers, name, &OwnNumber::name);
  CHECK(found != own_numbers.end(), "the model has no number {}", name);
  return found->value;
}

int model_len_limit(const ModelConfig& model) {
  const RopeConfig& rope = model.rope;
  if (rope.type != RopeType::linear && rope.type != RopeType::yarn) return model.max_position_embeddings;
  const int original =
      rope.original_max_position_embeddings > 0 ? rope.original_max_position_embeddings : model.max_position_embeddings;
  const double stretched = std::min(original * rope.factor, static_cast<double>(positions_max));
  return std::max(model.max_position_embeddings, static_cast<int>(stretched));
}

}  // namespace chorus

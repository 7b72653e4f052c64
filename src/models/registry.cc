#include "models/registry.h"

#include <fmt/ranges.h>

#include <vector>

#include "config/nearest_name.h"
#include "weights/checkpoint.h"

namespace chorus {

#define CHORUS_FAMILIES(row)                                                                                       \
  row(llama) row(cohere2) row(ernie4_5) row(deepseek_v2) row(deepseek_v3) row(exaone4) row(gemma2) row(gemma3)     \
      row(glm4) row(glm4_moe) row(gpt2) row(gpt_oss) row(granite) row(hunyuan_dense) row(mistral) row(mixtral)     \
          row(olmo2) row(olmoe) row(phi) row(phi3) row(phimoe) row(qwen2) row(qwen2_moe) row(qwen3) row(qwen3_moe) \
              row(qwen3_next) row(seed_oss) row(smollm3) row(stablelm) row(starcoder2)

#define CHORUS_DECLARE(name) extern const Family name##_family;
CHORUS_FAMILIES(CHORUS_DECLARE)
#undef CHORUS_DECLARE

namespace {

#define CHORUS_ADDRESS(name) &name##_family,
constexpr const Family* families[] = {CHORUS_FAMILIES(CHORUS_ADDRESS)};
#undef CHORUS_ADDRESS

std::vector<FamilyReader> readers() {
  std::vector<FamilyReader> result;
  for (const Family* family : families) {
    result.push_back({family->architecture, family->read_config});
    if (family->former_name != nullptr) result.push_back({family->former_name, family->read_config});
  }
  return result;
}

}  // namespace

Result<const Family*> find_family(const ModelConfig& config) {
  std::vector<std::string> known;
  for (const Family* family : families) {
    if (config.architecture == family->architecture) return family;
    if (family->former_name != nullptr && config.architecture == family->former_name) return family;
    known.emplace_back(family->architecture);
  }
  const auto nearest = nearest_name(config.architecture, known);
  return fail(ErrorCode::invalid_argument, "{}/config.json: architecture {} is not supported; known: {}{}",
              config.directory, config.architecture, fmt::join(known, ", "),
              nearest ? fmt::format("; nearest: {}", *nearest) : "");
}

Result<ModelConfig> read_model_config(const std::string& directory, const std::string& generation_config) {
  CHORUS_TRY(ModelConfig model, read_model_config(directory, generation_config, readers()));
  if (model.quantization.method != QuantizationMethod::gguf) {
    CHORUS_TRY(model.stored_formats, read_stored_formats(directory, model.quantization));
  }
  return model;
}

}  // namespace chorus

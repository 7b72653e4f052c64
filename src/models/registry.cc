#include "models/registry.h"

#include <fmt/ranges.h>

#include "config/nearest_name.h"
#include "models/families.h"

namespace chorus {

const std::vector<ModelFamily>& model_families() {
  static const std::vector<ModelFamily> table = {
      {"LlamaForCausalLM", llama_spec},   {"MistralForCausalLM", mistral_spec},    {"MixtralForCausalLM", mixtral_spec},
      {"PhimoeForCausalLM", phimoe_spec}, {"PhiMoEForCausalLM", phimoe_spec},      {"Qwen2ForCausalLM", qwen2_spec},
      {"Qwen3ForCausalLM", qwen3_spec},   {"Qwen3MoeForCausalLM", qwen3_moe_spec},
  };
  return table;
}

Result<const ModelFamily*> find_model_family(const ModelConfig& config) {
  std::vector<std::string> known;
  for (const ModelFamily& family : model_families()) {
    if (config.architecture == family.architecture) return &family;
    known.emplace_back(family.architecture);
  }
  const auto nearest = nearest_name(config.architecture, known);
  return fail(ErrorCode::invalid_argument, "{}/config.json: architecture {} is not supported; known: {}{}",
              config.directory, config.architecture, fmt::join(known, ", "),
              nearest ? fmt::format("; nearest: {}", *nearest) : "");
}

}  // namespace chorus

// Qwen2 and Qwen2.5 (Yang et al., 2024): biases on q, k and v, none on the output projection.
#include "models/family.h"

namespace chorus {
namespace {

Result<void> read_config(ConfigFields* fields, ModelConfig* model) {
  CHORUS_TRY_VOID(read_decoder_fields(fields, {}, model));
  model->attention_bias = true;
  read_windows(fields, Windows::upper_layers_if_used, 4096, model);
  return {};
}

Decoder make(const ModelPart& part) {
  return Decoder(part, {}, [](const LayerBuilder& layer) { return llama_block(layer, layer.attention_shape()); });
}

}  // namespace

extern const Family qwen2_family;
const Family qwen2_family = {"Qwen2ForCausalLM", nullptr, read_config, make};

}  // namespace chorus

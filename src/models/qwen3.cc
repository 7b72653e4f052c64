// Qwen3 (Yang et al., 2025): RMS norm over each head of q and k before the rotary embedding.
#include "models/family.h"

namespace chorus {
namespace {

Result<void> read_config(ConfigFields* fields, ModelConfig* model) {
  CHORUS_TRY_VOID(read_decoder_fields(fields, {.head_dim = 128}, model));
  model->attention_bias = model->attention_output_bias = fields->flag_or("attention_bias", false);
  read_windows(fields, Windows::upper_layers_if_used, 4096, model);
  return {};
}

Decoder make(const ModelPart& part) {
  return Decoder(part, {}, [](const LayerBuilder& layer) {
    Attention::Shape shape = layer.attention_shape();
    shape.head_norms = {"q_norm", "k_norm"};
    return llama_block(layer, shape);
  });
}

}  // namespace

extern const Family qwen3_family;
const Family qwen3_family = {"Qwen3ForCausalLM", nullptr, read_config, make};

}  // namespace chorus

// Llama 1 to 3 (Touvron et al., 2023; Dubey et al., 2024). attention_bias covers all four projections.
#include "models/family.h"

namespace chorus {
namespace {

Result<void> read_config(ConfigFields* fields, ModelConfig* model) {
  CHORUS_TRY_VOID(read_decoder_fields(fields, {}, model));
  model->attention_bias = model->attention_output_bias = fields->flag_or("attention_bias", false);
  return {};
}

Decoder make(const ModelPart& part) {
  return Decoder(part, {}, [](const LayerBuilder& layer) { return llama_block(layer, layer.attention_shape()); });
}

}  // namespace

extern const Family llama_family;
const Family llama_family = {"LlamaForCausalLM", nullptr, read_config, make};

}  // namespace chorus

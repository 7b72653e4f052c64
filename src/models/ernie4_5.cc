// ERNIE 4.5, dense (Baidu, 2025): Llama whose heads turn by neighbours.
#include "models/family.h"

namespace chorus {
namespace {

Result<void> read_config(ConfigFields* fields, ModelConfig* model) {
  CHORUS_TRY_VOID(
      read_decoder_fields(fields, {.norm_eps = 1e-5, .rope_theta = 5e5, .head_dim = 128, .ties = true}, model));
  model->attention_bias = model->attention_output_bias = model->mlp_bias = fields->flag_or("use_bias", false);
  return {};
}

Decoder make(const ModelPart& part) {
  return Decoder(part, {}, [](const LayerBuilder& layer) {
    Attention::Shape shape = layer.attention_shape();
    shape.head_rows = {layer.config.head_dim, 0, layer.config.rotary_dim()};
    return llama_block(layer, shape);
  });
}

}  // namespace

extern const Family ernie4_5_family;
const Family ernie4_5_family = {"Ernie4_5ForCausalLM", nullptr, read_config, make};

}  // namespace chorus

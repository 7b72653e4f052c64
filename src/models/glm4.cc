// GLM-4-0414 (Zhipu, 2025): norms before and after the halves of a layer; half of each head turns, by neighbours.
#include "models/family.h"

namespace chorus {
namespace {

Result<void> read_config(ConfigFields* fields, ModelConfig* model) {
  CHORUS_TRY_VOID(read_decoder_fields(
      fields, {.norm_eps = 1.5625e-7, .head_dim = 128, .turns_a_part = true, .partial_rotary_factor = 0.5}, model));
  model->attention_bias = fields->flag_or("attention_bias", false);
  return {};
}

Decoder make(const ModelPart& part) {
  return Decoder(part, {}, [](const LayerBuilder& layer) {
    Attention::Shape shape = layer.attention_shape();
    shape.head_rows = {layer.config.head_dim, 0, layer.config.rotary_dim()};
    return SequentialBlock{
        .before_attention = layer.norm("input_layernorm"),
        .attention = layer.attention(shape),
        .after_attention = layer.norm("post_self_attn_layernorm"),
        .before_mlp = layer.norm("post_attention_layernorm"),
        .mlp = layer.gated_mlp(Activation::silu, {"mlp.gate_up_proj", "mlp.gate_up_proj", "mlp.down_proj"}),
        .after_mlp = layer.norm("post_mlp_layernorm")};
  });
}

}  // namespace

extern const Family glm4_family;
const Family glm4_family = {"Glm4ForCausalLM", nullptr, read_config, make};

}  // namespace chorus

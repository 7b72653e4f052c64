// StableLM 2 1.6B and StableLM 3B (Bellagente et al., 2024): layer norm with bias; a quarter of each head turns. The
// 12B model's parallel halves and norms of heads are refused.
#include "models/family.h"

namespace chorus {
namespace {

Result<void> read_config(ConfigFields* fields, ModelConfig* model) {
  CHORUS_TRY_VOID(read_decoder_fields(
      fields, {.norm_eps_key = "layer_norm_eps", .norm_eps = 1e-5, .turns_a_part = true, .partial_rotary_factor = 0.25},
      model));
  model->attention_bias = fields->flag_or("use_qkv_bias", false);
  for (const char* const key : {"use_parallel_residual", "qk_layernorm"}) {
    if (fields->flag_or(key, false)) fields->refuse_value(key, *fields->find(key), "false");
  }
  return {};
}

Decoder make(const ModelPart& part) {
  DecoderEnds ends;
  ends.norm_kind = NormKind::layer;
  return Decoder(part, ends, [](const LayerBuilder& layer) {
    const auto mlp = [&] { return layer.gated_mlp(); };
    return pre_norm_block(layer, layer.attention_shape(), mlp, NormKind::layer);
  });
}

}  // namespace

extern const Family stablelm_family;
const Family stablelm_family = {"StableLmForCausalLM", nullptr, read_config, make};

}  // namespace chorus

// StarCoder 2 (Lozhkov et al., 2024): layer norms, biases everywhere, a plain feed-forward layer.
#include "models/family.h"

namespace chorus {
namespace {

Result<void> read_config(ConfigFields* fields, ModelConfig* model) {
  CHORUS_TRY_VOID(read_decoder_fields(
      fields, {.norm_eps_key = "norm_epsilon", .norm_eps = 1e-5, .ties = true, .is_gelu = true}, model));
  model->attention_bias = model->attention_output_bias = model->mlp_bias = fields->flag_or("use_bias", true);
  read_windows(fields, Windows::all_layers, 0, model);
  return {};
}

Decoder make(const ModelPart& part) {
  DecoderEnds ends;
  ends.norm_kind = NormKind::layer;
  return Decoder(part, ends, [](const LayerBuilder& layer) {
    const auto mlp = [&] { return layer.plain_mlp("mlp.c_fc", "mlp.c_proj"); };
    return pre_norm_block(layer, layer.attention_shape(), mlp, NormKind::layer);
  });
}

}  // namespace

extern const Family starcoder2_family;
const Family starcoder2_family = {"Starcoder2ForCausalLM", nullptr, read_config, make};

}  // namespace chorus

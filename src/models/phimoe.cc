// Phi-3.5-MoE (Abdin et al., 2024): layer norm with bias, biases on every attention projection and the output matrix,
// and the sparse mixer of GRIN as its router.
#include "models/family.h"

namespace chorus {
namespace {

Result<void> read_config(ConfigFields* fields, ModelConfig* model) {
  CHORUS_TRY_VOID(read_decoder_fields(fields, {.norm_eps = 1e-5, .rope_theta = 1e6}, model));
  model->attention_bias = model->attention_output_bias = fields->flag_or("attention_bias", false);
  read_windows(fields, Windows::all_layers, 0, model);
  make_every_layer_a_mixture(fields, 16, model);
  model->norm_topk_prob = false;  // the sparse mixer gives the two weights as they are
  model->own_numbers = {{"router_jitter_noise", fields->number_or("router_jitter_noise", 0, 1e3, 0.01)}};
  model->lm_head_bias = fields->flag_or("lm_head_bias", false);
  if (model->num_experts_per_tok != 2) {
    fields->refuse_value("num_experts_per_tok", *fields->find("num_experts_per_tok"), "2 (sparsemixer)");
  }
  return {};
}

Decoder make(const ModelPart& part) {
  DecoderEnds ends;
  ends.norm_kind = NormKind::layer;
  return Decoder(part, ends, [](const LayerBuilder& layer) {
    const auto experts = [&] {
      const MoeRouter router{MoeRouting::sparse_mixer, layer.config.own("router_jitter_noise")};
      return layer.moe(layer.moe_shape(router), "block_sparse_moe", {"w1", "w3", "w2"});
    };
    return pre_norm_block(layer, layer.attention_shape(), experts, NormKind::layer);
  });
}

}  // namespace

extern const Family phimoe_family;
const Family phimoe_family = {"PhimoeForCausalLM", "PhiMoEForCausalLM", read_config, make};

}  // namespace chorus

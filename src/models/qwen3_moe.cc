// Qwen3Moe (Yang et al., 2025): Qwen3 attention; some layers may be dense (mlp_only_layers, decoder_sparse_step).
#include "models/family.h"

namespace chorus {
namespace {

Result<void> read_config(ConfigFields* fields, ModelConfig* model) {
  CHORUS_TRY_VOID(read_decoder_fields(fields, {}, model));
  model->attention_bias = model->attention_output_bias = fields->flag_or("attention_bias", false);
  read_windows(fields, Windows::all_layers_if_used, 4096, model);
  read_qwen_experts(fields, {128, 8, 768}, model);
  return {};
}

Decoder make(const ModelPart& part) {
  return Decoder(part, {}, [](const LayerBuilder& layer) {
    Attention::Shape shape = layer.attention_shape();
    shape.head_norms = {"q_norm", "k_norm"};
    return pre_norm_block(layer, shape, [&]() -> FeedForward {
      if (!layer.is_moe()) return layer.gated_mlp();
      return layer.moe(layer.moe_shape({softmax_routing(layer.config)}));
    });
  });
}

}  // namespace

extern const Family qwen3_moe_family;
const Family qwen3_moe_family = {"Qwen3MoeForCausalLM", nullptr, read_config, make};

}  // namespace chorus

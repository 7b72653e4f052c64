// Qwen1.5-MoE and Qwen2-MoE (Yang et al., 2024): Qwen2's attention, and beside the chosen experts one that every token
// goes to, its output weighted by a gate of its own.
#include "models/family.h"

namespace chorus {
namespace {

Result<void> read_config(ConfigFields* fields, ModelConfig* model) {
  CHORUS_TRY_VOID(read_decoder_fields(fields, {}, model));
  model->attention_bias = fields->flag_or("qkv_bias", true);
  read_windows(fields, Windows::upper_layers_if_used, 4096, model);
  read_qwen_experts(fields, {60, 4, 1408}, model);
  const auto shared = fields->integer_or("shared_expert_intermediate_size", 1, 1 << 22, 5632);
  model->own_numbers = {{"shared_expert_intermediate_size", static_cast<double>(shared)}};
  return {};
}

Decoder make(const ModelPart& part) {
  return Decoder(part, {}, [](const LayerBuilder& layer) {
    return pre_norm_block(layer, layer.attention_shape(), [&]() -> FeedForward {
      if (!layer.is_moe()) return layer.gated_mlp();
      const auto width = static_cast<int>(layer.config.own("shared_expert_intermediate_size"));
      return layer.shared_moe(layer.moe_shape({softmax_routing(layer.config)}), {"shared_expert", width, true});
    });
  });
}

}  // namespace

extern const Family qwen2_moe_family;
const Family qwen2_moe_family = {"Qwen2MoeForCausalLM", nullptr, read_config, make};

}  // namespace chorus

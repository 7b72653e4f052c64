// GLM-4.5 and 4.6 (Zhipu, 2025): DeepSeek-V3's experts under usual attention, of which half of each head turns.
#include "models/family.h"

namespace chorus {
namespace {

Result<void> read_config(ConfigFields* fields, ModelConfig* model) {
  CHORUS_TRY_VOID(read_decoder_fields(
      fields, {.norm_eps = 1e-5, .head_dim = 128, .turns_a_part = true, .partial_rotary_factor = 0.5}, model));
  model->attention_bias = fields->flag_or("attention_bias", false);
  model->own_numbers = {{"use_qk_norm", fields->flag_or("use_qk_norm", false) ? 1.0 : 0.0}};
  read_deepseek_experts(fields, {128, 8, 1408, true, 1}, model);
  return {};
}

Decoder make(const ModelPart& part) {
  return Decoder(part, {}, [](const LayerBuilder& layer) {
    Attention::Shape shape = layer.attention_shape();
    if (layer.config.own("use_qk_norm") != 0) shape.head_norms = {"q_norm", "k_norm"};
    return pre_norm_block(layer, shape, [&] { return layer.deepseek_mlp(MoeRouting::group_sigmoid); });
  });
}

}  // namespace

extern const Family glm4_moe_family;
const Family glm4_moe_family = {"Glm4MoeForCausalLM", nullptr, read_config, make};

}  // namespace chorus

// OLMoE (Muennighoff et al., 2024): a mixture in every layer, norms of all heads of q and of k as one row.
#include "models/family.h"

namespace chorus {
namespace {

Result<void> read_config(ConfigFields* fields, ModelConfig* model) {
  CHORUS_TRY_VOID(read_decoder_fields(fields, {.norm_eps = 1e-5}, model));
  model->attention_bias = model->attention_output_bias = fields->flag_or("attention_bias", false);
  if (fields->has("clip_qkv")) fields->refuse_value("clip_qkv", *fields->find("clip_qkv"), "null");
  read_experts(fields, {"num_experts", 1, 64, 8}, model);
  model->moe_intermediate_size = model->intermediate_size;
  model->norm_topk_prob = fields->flag_or("norm_topk_prob", false);
  model->layer_is_moe.assign(static_cast<std::size_t>(model->num_hidden_layers), true);
  return {};
}

Decoder make(const ModelPart& part) {
  return Decoder(part, {}, [](const LayerBuilder& layer) {
    Attention::Shape shape = layer.attention_shape();
    shape.head_norms = {"q_norm", "k_norm", HeadNorms::Of::all_heads};
    return pre_norm_block(layer, shape, [&] { return layer.moe(layer.moe_shape({softmax_routing(layer.config)})); });
  });
}

}  // namespace

extern const Family olmoe_family;
const Family olmoe_family = {"OlmoeForCausalLM", nullptr, read_config, make};

}  // namespace chorus

// OLMo 2 (Walsh et al., 2024): norms of what the halves of a layer add, and of all heads of q and of k as one row.
#include "models/family.h"

namespace chorus {
namespace {

Result<void> read_config(ConfigFields* fields, ModelConfig* model) {
  CHORUS_TRY_VOID(read_decoder_fields(fields, {.norm_eps = 1e-5}, model));
  model->attention_bias = model->attention_output_bias = fields->flag_or("attention_bias", false);
  return {};
}

Decoder make(const ModelPart& part) {
  return Decoder(part, {}, [](const LayerBuilder& layer) {
    Attention::Shape shape = layer.attention_shape();
    shape.head_norms = {"q_norm", "k_norm", HeadNorms::Of::all_heads};
    return SequentialBlock{.attention = layer.attention(shape),
                           .after_attention = layer.norm("post_attention_layernorm"),
                           .mlp = layer.gated_mlp(),
                           .after_mlp = layer.norm("post_feedforward_layernorm")};
  });
}

}  // namespace

extern const Family olmo2_family;
const Family olmo2_family = {"Olmo2ForCausalLM", nullptr, read_config, make};

}  // namespace chorus

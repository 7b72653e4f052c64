#include "models/gemma.h"

#include <cmath>

namespace chorus {

Result<void> read_gemma_fields(ConfigFields* fields, const DecoderDefaults& defaults, ModelConfig* model) {
  DecoderDefaults gemma = defaults;
  gemma.activation_key = "hidden_activation";
  gemma.ties = gemma.is_gelu = true;
  CHORUS_TRY_VOID(read_decoder_fields(fields, gemma, model));
  model->attention_bias = model->attention_output_bias = fields->flag_or("attention_bias", false);
  model->attention_scale = 1.0 / std::sqrt(fields->number_or("query_pre_attn_scalar", 1e-6, 1e9, 256));
  auto root = static_cast<float>(std::sqrt(model->hidden_size));
  if (model->dtype == DType::bfloat16) root = to_float(to_bfloat16(root));
  model->own_numbers = {{"embedding_multiplier", root}, read_norm_weight_offset(fields)};
  return {};
}

void read_gemma_windows(ConfigFields* fields, int window_default, int pattern, ModelConfig* model) {
  const auto window = static_cast<int>(fields->integer_or("sliding_window", 1, positions_max, window_default));
  const auto sliding = read_sliding_layers(fields, *model);
  for (std::size_t layer = 0; layer < model->layer_window.size(); ++layer) {
    const bool slides = sliding ? (*sliding)[layer] : (layer + 1) % static_cast<std::size_t>(pattern) != 0;
    model->layer_window[layer] = slides ? window : 0;
  }
}

DecoderEnds gemma_ends(const ModelConfig& config) {
  DecoderEnds ends;
  ends.norm_kind = norm_about_one(config);
  ends.embedding_multiplier = config.own("embedding_multiplier");
  return ends;
}

SequentialBlock gemma_block(const LayerBuilder& layer, const Attention::Shape& shape) {
  const NormKind kind = norm_about_one(layer.config);
  return {.before_attention = layer.norm("input_layernorm", kind),
          .attention = layer.attention(shape),
          .after_attention = layer.norm("post_attention_layernorm", kind),
          .before_mlp = layer.norm("pre_feedforward_layernorm", kind),
          .mlp = layer.gated_mlp(Activation::gelu_tanh),
          .after_mlp = layer.norm("post_feedforward_layernorm", kind)};
}

}  // namespace chorus

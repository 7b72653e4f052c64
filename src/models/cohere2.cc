// Command R7B and Command A (Cohere, 2024, 2025): both halves of a layer read one layer norm without bias; layers with
// a window turn q and k by neighbours, one in four has no window and turns nothing.
#include "models/family.h"

namespace chorus {
namespace {

void read_windowed_layers(ConfigFields* fields, ModelConfig* model) {
  const auto window = static_cast<int>(fields->integer_or("sliding_window", 1, positions_max, 4096));
  const auto sliding = read_sliding_layers(fields, *model);
  const auto pattern = static_cast<std::size_t>(fields->integer_or("sliding_window_pattern", 1, layers_max, 4));
  for (std::size_t layer = 0; layer < model->layer_window.size(); ++layer) {
    const bool slides = sliding ? (*sliding)[layer] : (layer + 1) % pattern != 0;
    model->layer_window[layer] = slides ? window : 0;
    model->layer_is_rotary[layer] = slides;
  }
}

Result<void> read_config(ConfigFields* fields, ModelConfig* model) {
  CHORUS_TRY_VOID(
      read_decoder_fields(fields, {.norm_eps_key = "layer_norm_eps", .norm_eps = 1e-5, .ties = true}, model));
  model->attention_bias = model->attention_output_bias = fields->flag_or("attention_bias", false);
  read_windowed_layers(fields, model);
  model->own_numbers = {{"logit_scale", fields->number_or("logit_scale", 1e-9, 1e9, 0.0625)}};
  return {};
}

Decoder make(const ModelPart& part) {
  DecoderEnds ends;
  ends.norm_kind = NormKind::layer_unbiased;
  ends.logits_multiplier = part.config.own("logit_scale");
  return Decoder(part, ends, [](const LayerBuilder& layer) {
    Attention::Shape shape = layer.attention_shape();
    shape.head_rows = {layer.config.head_dim, 0, layer.config.head_dim};
    return ParallelBlock{layer.norm("input_layernorm", NormKind::layer_unbiased), layer.attention(shape),
                         layer.gated_mlp()};
  });
}

}  // namespace

extern const Family cohere2_family;
const Family cohere2_family = {"Cohere2ForCausalLM", nullptr, read_config, make};

}  // namespace chorus

// EXAONE 4 (LG AI Research, 2025): norms of what the halves of a layer add instead of what they read, and of each head
// of q and k; where there is a window the layers without it do not turn q and k.
#include "models/family.h"

namespace chorus {
namespace {

// Of sliding_window_pattern layers one has no window: the last of them.
void read_windowed_layers(ConfigFields* fields, ModelConfig* model) {
  const int fallback = fields->is_null("sliding_window") ? 0 : 4096;
  const auto window = static_cast<int>(fields->integer_or("sliding_window", 1, positions_max, fallback));
  if (window == 0) return;
  const auto sliding = read_sliding_layers(fields, *model);
  const auto pattern = sliding ? 4 : fields->integer_or("sliding_window_pattern", 1, layers_max, 4);
  for (std::size_t layer = 0; layer < model->layer_window.size(); ++layer) {
    const bool slides = sliding ? (*sliding)[layer] : (layer + 1) % static_cast<std::size_t>(pattern) != 0;
    model->layer_window[layer] = slides ? window : 0;
    model->layer_is_rotary[layer] = slides;
  }
}

Result<void> read_config(ConfigFields* fields, ModelConfig* model) {
  CHORUS_TRY_VOID(read_decoder_fields(fields, {.norm_eps = 1e-5}, model));
  read_windowed_layers(fields, model);
  return {};
}

Decoder make(const ModelPart& part) {
  return Decoder(part, {}, [](const LayerBuilder& layer) {
    Attention::Shape shape = layer.attention_shape();
    shape.head_norms = {"q_norm", "k_norm"};
    return SequentialBlock{.attention = layer.attention(shape),
                           .after_attention = layer.norm("post_attention_layernorm"),
                           .mlp = layer.gated_mlp(),
                           .after_mlp = layer.norm("post_feedforward_layernorm")};
  });
}

}  // namespace

extern const Family exaone4_family;
const Family exaone4_family = {"Exaone4ForCausalLM", nullptr, read_config, make};

}  // namespace chorus

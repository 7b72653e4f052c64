// SmolLM3 (Hugging Face, 2025): Llama where every fourth layer does not turn q and k (NoPE: Yang et al., 2025).
#include "models/family.h"

namespace chorus {
namespace {

// no_rope_layers has 1 for a layer that turns, in spite of its name.
void read_rotary_layers(ConfigFields* fields, ModelConfig* model) {
  const auto layers = static_cast<std::size_t>(model->num_hidden_layers);
  const auto interval = static_cast<std::size_t>(fields->integer_or("no_rope_layer_interval", 1, layers_max, 4));
  const auto given = fields->integers("no_rope_layers", layers_max, 0);
  if (!given.empty() && given.size() != layers) {
    fields->refuse("no_rope_layers has another number of entries than num_hidden_layers");
    return;
  }
  for (std::size_t layer = 0; layer < layers; ++layer) {
    model->layer_is_rotary[layer] = given.empty() ? (layer + 1) % interval != 0 : given[layer] != 0;
  }
}

// The window holds where layer_types says so, else where nothing turns.
void read_windowed_layers(ConfigFields* fields, ModelConfig* model) {
  if (!fields->flag_or("use_sliding_window", false)) return;
  const auto window = static_cast<int>(fields->integer_or("sliding_window", 1, positions_max, 0));
  const auto sliding = read_sliding_layers(fields, *model);
  for (std::size_t layer = 0; layer < model->layer_window.size(); ++layer) {
    const bool slides = sliding ? (*sliding)[layer] : !model->layer_is_rotary[layer];
    if (slides) model->layer_window[layer] = window;
  }
}

Result<void> read_config(ConfigFields* fields, ModelConfig* model) {
  CHORUS_TRY_VOID(read_decoder_fields(fields, {.rope_theta = 2e6}, model));
  model->attention_bias = model->attention_output_bias = fields->flag_or("attention_bias", false);
  read_rotary_layers(fields, model);
  read_windowed_layers(fields, model);
  return {};
}

Decoder make(const ModelPart& part) {
  return Decoder(part, {}, [](const LayerBuilder& layer) { return llama_block(layer, layer.attention_shape()); });
}

}  // namespace

extern const Family smollm3_family;
const Family smollm3_family = {"SmolLM3ForCausalLM", nullptr, read_config, make};

}  // namespace chorus

// gpt-oss (OpenAI, 2025): every other layer has a window; each head has a learned sink; experts with biases and a
// clamped swish, which lie in one tensor.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "models/family.h"

namespace chorus {
namespace {

void read_windowed_layers(ConfigFields* fields, ModelConfig* model) {
  const auto window = static_cast<int>(fields->integer_or("sliding_window", 1, positions_max, 128));
  const auto sliding = read_sliding_layers(fields, *model);
  for (std::size_t layer = 0; layer < model->layer_window.size(); ++layer) {
    const bool slides = sliding ? (*sliding)[layer] : layer % 2 == 0;
    model->layer_window[layer] = slides ? window : 0;
  }
}

Result<void> read_config(ConfigFields* fields, ModelConfig* model) {
  CHORUS_TRY_VOID(read_decoder_fields(fields, {.norm_eps = 1e-5, .rope_theta = 1.5e5, .head_dim = 64}, model));
  model->attention_bias = model->attention_output_bias = fields->flag_or("attention_bias", true);
  read_windowed_layers(fields, model);
  make_every_layer_a_mixture(fields, 128, model);
  for (const auto& [key, value] : {std::pair{"swiglu_limit", 7.0}, {"swiglu_alpha", 1.702}}) {
    if (fields->number_or(key, 0, 1e6, value) != value) {
      fields->refuse_value(key, *fields->find(key), fmt::format("{}", value));
    }
  }
  return {};
}

Decoder make(const ModelPart& part) {
  return Decoder(part, {}, [](const LayerBuilder& layer) {
    Attention::Shape attention = layer.attention_shape();
    attention.sinks = "sinks";
    return pre_norm_block(layer, attention, [&] {
      MoeLayer::Shape experts = layer.moe_shape({MoeRouting::softmax_top_k_normalized});
      experts.router_name = "router";
      experts.router_bias = experts.stacked = true;
      experts.activation = Activation::clamped_swish;
      return layer.moe(experts, "mlp", {"gate_up_proj", "gate_up_proj", "down_proj"});
    });
  });
}

}  // namespace

extern const Family gpt_oss_family;
const Family gpt_oss_family = {"GptOssForCausalLM", nullptr, read_config, make};

}  // namespace chorus

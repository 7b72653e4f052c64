// Qwen3-Next (2025): three layers in four are gated delta nets, the others attention with gated heads; in all of them
// experts beside a gated shared one. Norms' weights are kept less 1, unless the file has them otherwise (GGUF).
#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "models/family.h"

namespace chorus {
namespace {

// layer_types, or each full_attention_interval-th layer is one of attention. One bit a layer, 48 in a number.
constexpr int layers_of_number = 48;
std::string name_of_attention(int layer) {
  return "full_attention_layers_" + std::to_string(layer / layers_of_number);
}

void read_attention_layers(ConfigFields* fields, ModelConfig* model) {
  const auto interval = fields->integer_or("full_attention_interval", 1, layers_max, 4);
  const auto types = fields->texts("layer_types", layers_max);
  if (!types.empty() && types.size() != static_cast<std::size_t>(model->num_hidden_layers)) {
    fields->refuse("layer_types has another number of entries than num_hidden_layers");
    return;
  }
  double bits = 0;
  for (int layer = 0; layer < model->num_hidden_layers; ++layer) {
    const std::string type = types.empty() ? "" : types[static_cast<std::size_t>(layer)];
    if (!types.empty() && type != "full_attention" && type != "linear_attention") {
      fields->refuse_value("layer_types", Json(type), "full_attention, linear_attention");
    }
    const bool attends = types.empty() ? (layer + 1) % interval == 0 : type == "full_attention";
    if (attends) bits += std::ldexp(1.0, layer % layers_of_number);
    if ((layer + 1) % layers_of_number == 0 || layer + 1 == model->num_hidden_layers) {
      model->own_numbers.push_back({name_of_attention(layer), bits});
      bits = 0;
    }
  }
}

bool attends(const LayerBuilder& layer) {
  const auto bits = static_cast<std::uint64_t>(layer.config.own(name_of_attention(layer.index())));
  return (bits >> (layer.index() % layers_of_number) & 1U) != 0;
}

void read_delta_net(ConfigFields* fields, ModelConfig* model) {
  const auto number = [&](const char* key, std::int64_t max, std::int64_t fallback) {
    model->own_numbers.push_back({key, static_cast<double>(fields->integer_or(key, 1, max, fallback))});
  };
  number("linear_num_key_heads", 1 << 16, 16);
  number("linear_num_value_heads", 1 << 16, 32);
  number("linear_key_head_dim", 512, 128);
  number("linear_value_head_dim", 512, 128);
  number("linear_conv_kernel_dim", 16, 4);
  const auto keys = static_cast<int>(model->own("linear_num_key_heads"));
  const auto values = static_cast<int>(model->own("linear_num_value_heads"));
  if (values % keys != 0) {
    fields->refuse(fmt::format("linear_num_value_heads {} is not a multiple of linear_num_key_heads {}", values, keys));
  }
}

Result<void> read_config(ConfigFields* fields, ModelConfig* model) {
  CHORUS_TRY_VOID(
      read_decoder_fields(fields, {.head_dim = 256, .turns_a_part = true, .partial_rotary_factor = 0.25}, model));
  model->attention_bias = model->attention_output_bias = fields->flag_or("attention_bias", false);
  if (model->attention_bias) fields->refuse_value("attention_bias", *fields->find("attention_bias"), "false");
  read_qwen_experts(fields, {512, 10, 512}, model);
  const auto shared = fields->integer_or("shared_expert_intermediate_size", 1, 1 << 22, 512);
  model->own_numbers = {{"shared_expert_intermediate_size", static_cast<double>(shared)},
                        read_norm_weight_offset(fields),
                        {"linear_decays_are_final", fields->flag_or("linear_decays_are_final", false) ? 1.0 : 0.0}};
  read_attention_layers(fields, model);
  read_delta_net(fields, model);
  return {};
}

Mixer make_mixer(const LayerBuilder& layer) {
  if (attends(layer)) {
    Attention::Shape shape = layer.attention_shape();
    shape.gated = true;
    shape.head_norms = {"q_norm", "k_norm", HeadNorms::Of::each_head, norm_about_one(layer.config)};
    return layer.attention(shape);
  }
  const auto number = [&](const char* name) { return static_cast<int>(layer.config.own(name)); };
  DeltaNet::Shape shape;
  shape.key_heads = number("linear_num_key_heads");
  shape.value_heads = number("linear_num_value_heads");
  shape.key_dim = number("linear_key_head_dim");
  shape.value_dim = number("linear_value_head_dim");
  shape.kernel = number("linear_conv_kernel_dim");
  shape.has_final_decays = number("linear_decays_are_final") != 0;
  return layer.delta_net(shape);
}

FeedForward make_mlp(const LayerBuilder& layer) {
  if (!layer.is_moe()) return layer.gated_mlp();
  const auto width = static_cast<int>(layer.config.own("shared_expert_intermediate_size"));
  return layer.shared_moe(layer.moe_shape({softmax_routing(layer.config)}), {"shared_expert", width, true});
}

Decoder make(const ModelPart& part) {
  DecoderEnds ends;
  ends.norm_kind = norm_about_one(part.config);
  return Decoder(part, ends, [](const LayerBuilder& layer) {
    const NormKind kind = norm_about_one(layer.config);
    return SequentialBlock{.before_attention = layer.norm("input_layernorm", kind),
                           .attention = make_mixer(layer),
                           .before_mlp = layer.norm("post_attention_layernorm", kind),
                           .mlp = make_mlp(layer)};
  });
}

}  // namespace

extern const Family qwen3_next_family;
const Family qwen3_next_family = {"Qwen3NextForCausalLM", nullptr, read_config, make};

}  // namespace chorus

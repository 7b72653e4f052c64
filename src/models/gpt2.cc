// GPT-2 (Radford et al., 2019): a learned vector for each position instead of rotary embeddings, layer norms, a plain
// feed-forward layer; matrices lie as [inputs, outputs].
#include <nlohmann/json.hpp>

#include "models/family.h"

namespace chorus {
namespace {

// Its own names of what the others call hidden_size and so on.
Json renamed(const ConfigFields& fields) {
  constexpr std::pair<const char*, const char*> names[] = {{"n_embd", "hidden_size"},
                                                           {"n_inner", "intermediate_size"},
                                                           {"n_layer", "num_hidden_layers"},
                                                           {"n_head", "num_attention_heads"},
                                                           {"n_positions", "max_position_embeddings"},
                                                           {"vocab_size", "vocab_size"},
                                                           {"activation_function", "hidden_act"},
                                                           {"layer_norm_epsilon", "norm_eps"},
                                                           {"tie_word_embeddings", "tie_word_embeddings"},
                                                           {"torch_dtype", "torch_dtype"},
                                                           {"dtype", "dtype"}};
  Json renamed = Json::object();
  for (const auto& [own, common] : names) {
    if (const Json* value = fields.find(own)) renamed[common] = *value;
  }
  const Json* width = fields.find("n_embd");
  if (!renamed.contains("intermediate_size") && width != nullptr && width->is_number_integer()) {
    renamed["intermediate_size"] = 4 * width->get<std::int64_t>();
  }
  return renamed;
}

Result<void> read_config(ConfigFields* fields, ModelConfig* model) {
  const Json common = renamed(*fields);
  ConfigFields own(common, fields->where() + " (n_embd is hidden_size, n_layer num_hidden_layers, and so on)");
  CHORUS_TRY_VOID(
      read_decoder_fields(&own, {.norm_eps_key = "norm_eps", .norm_eps = 1e-5, .ties = true, .is_gelu = true}, model));
  CHORUS_TRY_VOID(own.finish());
  model->attention_bias = model->attention_output_bias = model->mlp_bias = true;
  model->layer_is_rotary.assign(static_cast<std::size_t>(model->num_hidden_layers), false);
  for (const char* const key : {"scale_attn_by_inverse_layer_idx", "add_cross_attention"}) {
    if (fields->flag_or(key, false)) fields->refuse_value(key, *fields->find(key), "false");
  }
  return {};
}

Decoder make(const ModelPart& part) {
  DecoderEnds ends;
  ends.embedding = "transformer.wte";
  ends.positions = "transformer.wpe";
  ends.layers = "transformer.h";
  ends.norm = "transformer.ln_f";
  ends.norm_kind = NormKind::layer;
  return Decoder(part, ends, [](const LayerBuilder& layer) {
    Attention::Shape shape = layer.attention_shape();
    shape.q = shape.k = shape.v = "c_attn";
    shape.output = "c_proj";
    shape.transposed = true;
    return SequentialBlock{.before_attention = layer.norm("ln_1", NormKind::layer),
                           .attention = layer.attention(shape, "attn"),
                           .before_mlp = layer.norm("ln_2", NormKind::layer),
                           .mlp = layer.plain_mlp("mlp.c_fc", "mlp.c_proj", true)};
  });
}

}  // namespace

extern const Family gpt2_family;
const Family gpt2_family = {"GPT2LMHeadModel", nullptr, read_config, make};

}  // namespace chorus

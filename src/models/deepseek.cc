#include "models/deepseek.h"

#include <cmath>
#include <nlohmann/json.hpp>

namespace chorus {
namespace {

// YaRN as DeepSeek has it scales q k, too: by the square of 0.1 mscale_all_dim ln(factor) + 1 (modeling_deepseek.py).
double yarn_factor(const ConfigFields& fields, const ModelConfig& model) {
  const Json* rope = fields.find(fields.has("rope_parameters") ? "rope_parameters" : "rope_scaling");
  if (model.rope.type != RopeType::yarn || rope == nullptr || !rope->contains("mscale_all_dim")) return 1.0;
  const Json& mscale = (*rope)["mscale_all_dim"];
  if (!mscale.is_number() || model.rope.factor <= 1) return 1.0;
  const double factor = 0.1 * mscale.get<double>() * std::log(model.rope.factor) + 1.0;
  return factor * factor;
}

}  // namespace

Result<void> read_latent_fields(ConfigFields* fields, ModelConfig* model) {
  CHORUS_TRY_VOID(read_decoder_fields(fields, {}, model));
  constexpr int rank_max = 1 << 16, dim_max = 2048;
  const auto still = fields->integer_or("qk_nope_head_dim", 1, dim_max, 128);
  const auto turns = fields->integer_or("qk_rope_head_dim", 2, dim_max, 64);
  const auto values = fields->integer_or("v_head_dim", 1, still + turns, 128);
  if (turns % 2 != 0) fields->refuse_value("qk_rope_head_dim", *fields->find("qk_rope_head_dim"), "an even number");
  model->num_key_value_heads = model->num_attention_heads;
  model->head_dim = static_cast<int>(still + turns);
  model->partial_rotary_factor = static_cast<double>(turns) / model->head_dim;
  model->attention_bias = model->attention_output_bias = fields->flag_or("attention_bias", false);
  model->attention_scale = yarn_factor(*fields, *model) / std::sqrt(static_cast<double>(still + turns));
  const auto query_rank = fields->is_null("q_lora_rank") ? 0 : fields->integer_or("q_lora_rank", 1, rank_max, 1536);
  model->own_numbers = {{"q_lora_rank", static_cast<double>(query_rank)},
                        {"kv_lora_rank", static_cast<double>(fields->integer_or("kv_lora_rank", 1, rank_max, 512))},
                        {"qk_rope_head_dim", static_cast<double>(turns)},
                        {"v_head_dim", static_cast<double>(values)},
                        {"rope_interleave", fields->flag_or("rope_interleave", true) ? 1.0 : 0.0}};
  return {};
}

LatentAttention latent_attention(const LayerBuilder& layer) {
  const ModelConfig& config = layer.config;
  LatentAttention::Shape shape;
  shape.hidden_size = config.hidden_size;
  shape.heads = config.num_attention_heads;
  shape.query_rank = static_cast<int>(config.own("q_lora_rank"));
  shape.rank = static_cast<int>(config.own("kv_lora_rank"));
  shape.rotary_dim = static_cast<int>(config.own("qk_rope_head_dim"));
  shape.still_dim = config.head_dim - shape.rotary_dim;
  shape.value_dim = static_cast<int>(config.own("v_head_dim"));
  shape.pairs = config.own("rope_interleave") != 0;
  shape.bias = config.attention_bias;
  shape.scale = config.attention_scale;
  return layer.latent_attention(shape);
}

Decoder make_deepseek(const ModelPart& part, MoeRouting routing) {
  return Decoder(part, {}, [routing](const LayerBuilder& layer) {
    return SequentialBlock{.before_attention = layer.norm("input_layernorm"),
                           .attention = latent_attention(layer),
                           .before_mlp = layer.norm("post_attention_layernorm"),
                           .mlp = layer.deepseek_mlp(routing)};
  });
}

}  // namespace chorus

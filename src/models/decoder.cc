#include "models/decoder.h"

namespace chorus {

ModelShard whole_model(const ModelConfig& config, TensorParallel tp) {
  return {tp, 0, config.num_hidden_layers, true, true, {}};
}

Decoder::Decoder(Parameters& parameters, const ModelShard& shard, const ModelConfig& config, const DecoderSpec& spec)
    : config_(config) {
  const std::string embedding_name = "model.embed_tokens.weight";
  // A tied model's one matrix serves both ends where one stage has both.
  const bool tied = config.tie_word_embeddings && shard.last_stage;
  if (shard.first_stage && !tied)
    embedding_.emplace(parameters, shard.tp, embedding_name, config.vocab_size, config.hidden_size,
                       config.tie_word_embeddings);
  layers_.reserve(static_cast<std::size_t>(shard.last_layer - shard.first_layer));
  for (int index = shard.first_layer; index < shard.last_layer; ++index) {
    layers_.push_back(make_layer(parameters, shard.tp, shard.ep, spec, index));
  }
  if (!shard.last_stage) return;
  norm_.emplace(parameters, "model.norm", config.hidden_size, config.norm_eps, spec.layer_norm);
  head_.emplace(parameters, shard.tp, config.tie_word_embeddings ? embedding_name : "lm_head.weight",
                config.lm_head_bias ? "lm_head.bias" : "", config.vocab_size, config.hidden_size);
  if (shard.first_stage && tied) embedding_.emplace(*head_, shard.tp, config.vocab_size, config.hidden_size);
}

Attention::Shape Decoder::attention_shape(const DecoderSpec& spec, int index) const {
  const auto at = static_cast<std::size_t>(index);
  Attention::Shape shape;
  shape.hidden_size = config_.hidden_size;
  shape.heads = config_.num_attention_heads;
  shape.kv_heads = config_.num_key_value_heads;
  shape.head_dim = config_.head_dim;
  shape.qkv_bias = config_.attention_bias;
  shape.output_bias = config_.attention_output_bias;
  shape.fused_qkv = spec.fused_qkv;
  shape.scale = config_.attention_scale;
  shape.window = config_.layer_window[at];
  shape.is_rotary = config_.layer_is_rotary[at];
  shape.head_norms = spec.head_norms;
  shape.norm_eps = config_.norm_eps;
  return shape;
}

Decoder::Layer Decoder::make_layer(Parameters& parameters, TensorParallel tp, const ExpertParallel& ep,
                                   const DecoderSpec& spec, int index) const {
  const std::string prefix = "model.layers." + std::to_string(index) + ".";
  const auto norm = [&](const std::string& name) {
    return name.empty() ? std::nullopt
                        : std::optional<Norm>(std::in_place, parameters, prefix + name, config_.hidden_size,
                                              config_.norm_eps, spec.layer_norm);
  };
  // One after the other: the order of declaration is the arena's.
  auto before_attention = norm(spec.norms.before_attention);
  Attention attention(parameters, tp, prefix + "self_attn", attention_shape(spec, index));
  auto after_attention = norm(spec.norms.after_attention);
  auto before_mlp = norm(spec.norms.before_mlp);
  auto after_mlp = norm(spec.norms.after_mlp);
  if (config_.num_experts > 0 && config_.layer_is_moe[static_cast<std::size_t>(index)]) {
    MoeLayer moe(parameters, tp, ep, prefix + spec.moe_prefix, spec.expert_names,
                 {config_.hidden_size, config_.moe_intermediate_size, config_.num_experts, config_.num_experts_per_tok,
                  spec.routing, config_.router_jitter_noise});
    return {before_attention, after_attention, std::move(attention), before_mlp, after_mlp, std::move(moe)};
  }
  const GatedMlp::Names& names = spec.mlp_names;
  GatedMlp dense(parameters, tp, {prefix + names.gate, prefix + names.up, prefix + names.down}, config_.hidden_size,
                 config_.intermediate_size, config_.mlp_bias);
  return {before_attention, after_attention, std::move(attention), before_mlp, after_mlp, std::move(dense)};
}

int Decoder::kv_heads() const {
  return layers_.front().attention.kv_heads();
}

template <typename Add>
Result<void> Decoder::add_half(const LayerContext& context, const Parameters& parameters,
                               const std::optional<Norm>& before, const std::optional<Norm>& after,
                               const View& residual, Add&& add) const {
  Device& device = context.device;
  const Scratch::Scope scope(device.scratch());
  ProductInput input;
  if (before) {
    input.rows = device.take(device.product_dtype(), residual.rows, residual.columns);
    before->forward(context, parameters, residual, input.rows);
  } else {
    input = product_input(device, residual);
  }
  const auto multiplier = static_cast<float>(config_.residual_multiplier);
  // Added at once, unless it is read from where it would be added to.
  if (before && !after && multiplier == 1.0F) return add(input, residual);
  const View added = device.take(DType::float32, residual.rows, residual.columns);
  fill_zero(device, added);
  CHORUS_TRY_VOID(add(input, added));
  if (after) after->forward(context, parameters, added, added);
  add_scaled(device, added, multiplier, residual);
  return {};
}

Result<void> Decoder::forward(const LayerContext& context, const Parameters& parameters,
                              const RotaryTable& rotary_table, std::span<const KvCacheLayer> caches,
                              const StepInput& step, const View& hidden) const {
  if (embedding_) {
    CHORUS_TRY_VOID(embedding_->forward(context, parameters, step, hidden));
    const auto multiplier = static_cast<float>(config_.embedding_multiplier);
    if (multiplier != 1.0F) scale(context.device, multiplier, hidden);
  }
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    const Layer& layer = layers_[i];
    const auto attend = [&](const ProductInput& x, const View& out) {
      return layer.attention.add_to(context, parameters, rotary_table, caches[i], step, x, out);
    };
    const auto feed_forward = [&](const ProductInput& x, const View& out) {
      return std::visit([&](const auto& mlp) { return mlp.add_to(context, parameters, x, out); }, layer.mlp);
    };
    CHORUS_TRY_VOID(add_half(context, parameters, layer.before_attention, layer.after_attention, hidden, attend));
    CHORUS_TRY_VOID(add_half(context, parameters, layer.before_mlp, layer.after_mlp, hidden, feed_forward));
    context.progress.moved();
  }
  return {};
}

Result<View> Decoder::logits(const LayerContext& context, const Parameters& parameters, const View& hidden,
                             const StepInput& step, std::int64_t first, std::int64_t count) const {
  Device& device = context.device;
  const View gathered = device.take(DType::float32, count, config_.hidden_size);
  gather_wanted(device, hidden, step, first, gathered);
  const View normed =
      device.kind() == DeviceKind::cpu ? gathered : device.take(device.product_dtype(), count, config_.hidden_size);
  norm_->forward(context, parameters, gathered, normed);
  CHORUS_TRY(const View out, head_->forward(context, parameters, {normed}));
  const auto multiplier = static_cast<float>(1.0 / config_.logits_divisor);
  if (multiplier != 1.0F) scale(device, multiplier, out);
  return out;
}

}  // namespace chorus

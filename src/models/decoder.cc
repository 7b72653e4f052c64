#include "models/decoder.h"

#include <algorithm>

namespace chorus {
namespace {

void scale(ThreadPool& pool, std::int64_t rows, std::int64_t width, float factor, float* x) {
  if (factor == 1.0F) return;
  pool.for_range(rows, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin * width; i < end * width; ++i) x[i] *= factor;
  });
}

}  // namespace

ModelShard whole_model(const ModelConfig& config, TensorParallel tp) {
  return {tp, 0, config.num_hidden_layers, true, true, {}};
}

Decoder::Decoder(Parameters& parameters, const ModelShard& shard, const ModelConfig& config, const DecoderSpec& spec)
    : config_(config) {
  const std::string embedding_name = "model.embed_tokens.weight";
  // A tied model's one matrix serves both ends where one stage has both.
  const bool tied = config.tie_word_embeddings && shard.last_stage;
  if (shard.first_stage && !tied)
    embedding_.emplace(parameters, shard.tp, embedding_name, config.vocab_size, config.hidden_size);
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
                               const std::optional<Norm>& before, const std::optional<Norm>& after, std::int64_t rows,
                               float* residual, Add&& add) const {
  const Scratch::Scope scope(context.scratch);
  const std::int64_t width = config_.hidden_size;
  const float* input = residual;
  if (before) {
    float* normed = context.scratch.take_array<float>(rows * width);
    before->forward(context, parameters, residual, rows, width, normed, width);
    input = normed;
  }
  const auto multiplier = static_cast<float>(config_.residual_multiplier);
  // Added at once, unless it is read from where it would be added to.
  if (before && !after && multiplier == 1.0F) return add(input, residual);
  float* added = context.scratch.take_array<float>(rows * width);
  std::fill_n(added, rows * width, 0.0F);
  CHORUS_TRY_VOID(add(input, added));
  if (after) after->forward(context, parameters, added, rows, width, added, width);
  context.pool.for_range(rows, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin * width; i < end * width; ++i) residual[i] += multiplier * added[i];
  });
  return {};
}

Result<void> Decoder::forward(const LayerContext& context, const Parameters& parameters,
                              const RotaryTable& rotary_table, std::span<const KvCacheLayer> caches,
                              const DecoderBatch& batch, float* hidden) const {
  const auto rows = static_cast<std::int64_t>(batch.tokens.size());
  if (embedding_) {
    CHORUS_TRY_VOID(embedding_->forward(context, parameters, batch.tokens, hidden));
    scale(context.pool, rows, config_.hidden_size, static_cast<float>(config_.embedding_multiplier), hidden);
  }
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    const Layer& layer = layers_[i];
    const auto attend = [&](const float* x, float* out) {
      return layer.attention.add_to(context, parameters, rotary_table, caches[i], batch.sequences,
                                    batch.positions.data(), x, rows, out);
    };
    const auto feed_forward = [&](const float* x, float* out) {
      return std::visit([&](const auto& mlp) { return mlp.add_to(context, parameters, x, rows, out); }, layer.mlp);
    };
    CHORUS_TRY_VOID(add_half(context, parameters, layer.before_attention, layer.after_attention, rows, hidden, attend));
    CHORUS_TRY_VOID(add_half(context, parameters, layer.before_mlp, layer.after_mlp, rows, hidden, feed_forward));
    context.progress.moved();
  }
  return {};
}

Result<void> Decoder::logits(const LayerContext& context, const Parameters& parameters, const float* hidden,
                             std::span<const std::int32_t> rows, float* out) const {
  const Scratch::Scope scope(context.scratch);
  const std::int64_t width = config_.hidden_size;
  const auto m = static_cast<std::int64_t>(rows.size());
  float* gathered = context.scratch.take_array<float>(m * width);
  for (std::int64_t i = 0; i < m; ++i)
    std::copy_n(hidden + rows[static_cast<std::size_t>(i)] * width, width, gathered + i * width);
  norm_->forward(context, parameters, gathered, m, width, gathered, width);
  CHORUS_TRY_VOID(head_->forward(context, parameters, gathered, m, width, out));
  const RowShare own = logits_share(m, context.tp.rank(), context.tp.size());
  scale(context.pool, own.count, config_.vocab_size, static_cast<float>(1.0 / config_.logits_divisor), out);
  return {};
}

}  // namespace chorus

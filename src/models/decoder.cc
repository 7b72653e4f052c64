#include "models/decoder.h"

#include <algorithm>

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
    embedding_.emplace(parameters, shard.tp, embedding_name, config.vocab_size, config.hidden_size);
  layers_.reserve(static_cast<std::size_t>(shard.last_layer - shard.first_layer));
  for (int index = shard.first_layer; index < shard.last_layer; ++index) {
    layers_.push_back(make_layer(parameters, shard.tp, shard.ep, spec, index));
  }
  if (!shard.last_stage) return;
  norm_.emplace(parameters, "model.norm", config.hidden_size, config.rms_norm_eps, spec.layer_norm);
  head_.emplace(parameters, shard.tp, config.tie_word_embeddings ? embedding_name : "lm_head.weight",
                config.lm_head_bias ? "lm_head.bias" : "", config.vocab_size, config.hidden_size);
  if (shard.first_stage && tied) embedding_.emplace(*head_, shard.tp, config.vocab_size, config.hidden_size);
}

Decoder::Layer Decoder::make_layer(Parameters& parameters, TensorParallel tp, const ExpertParallel& ep,
                                   const DecoderSpec& spec, int index) const {
  const std::string prefix = "model.layers." + std::to_string(index) + ".";
  const auto at = static_cast<std::size_t>(index);
  Norm attention_norm(parameters, prefix + "input_layernorm", config_.hidden_size, config_.rms_norm_eps,
                      spec.layer_norm);
  Attention attention(
      parameters, tp, prefix + "self_attn",
      {config_.hidden_size, config_.num_attention_heads, config_.num_key_value_heads, config_.head_dim, spec.qkv_bias,
       spec.attention_output_bias, spec.qk_norm, config_.rms_norm_eps, config_.layer_window[at]});
  Norm mlp_norm(parameters, prefix + "post_attention_layernorm", config_.hidden_size, config_.rms_norm_eps,
                spec.layer_norm);
  if (config_.num_experts > 0 && config_.layer_is_moe[at]) {
    MoeLayer moe(parameters, tp, ep, prefix + spec.moe_prefix, spec.expert_names,
                 {config_.hidden_size, config_.moe_intermediate_size, config_.num_experts, config_.num_experts_per_tok,
                  spec.routing, config_.router_jitter_noise});
    return {attention_norm, std::move(attention), mlp_norm, std::move(moe)};
  }
  const std::string mlp = prefix + spec.mlp_prefix + ".";
  GatedMlp dense(parameters, tp, {mlp + "gate_proj", mlp + "up_proj", mlp + "down_proj"}, config_.hidden_size,
                 config_.intermediate_size, config_.mlp_bias);
  return {attention_norm, std::move(attention), mlp_norm, std::move(dense)};
}

int Decoder::kv_heads() const {
  return layers_.front().attention.kv_heads();
}

Result<void> Decoder::forward(const LayerContext& context, const Parameters& parameters,
                              const RotaryTable& rotary_table, std::span<const KvCacheLayer> caches,
                              const DecoderBatch& batch, float* hidden) const {
  const Scratch::Scope scope(context.scratch);
  const auto rows = static_cast<std::int64_t>(batch.tokens.size());
  const std::int64_t width = config_.hidden_size;
  float* normed = context.scratch.take_array<float>(rows * width);
  if (embedding_) CHORUS_TRY_VOID(embedding_->forward(context, parameters, batch.tokens, hidden));
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    const Layer& layer = layers_[i];
    layer.attention_norm.forward(context, parameters, hidden, rows, width, normed, width);
    CHORUS_TRY_VOID(layer.attention.add_to(context, parameters, rotary_table, caches[i], batch.sequences,
                                           batch.positions.data(), normed, rows, hidden));
    layer.mlp_norm.forward(context, parameters, hidden, rows, width, normed, width);
    CHORUS_TRY_VOID(
        std::visit([&](const auto& mlp) { return mlp.add_to(context, parameters, normed, rows, hidden); }, layer.mlp));
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
  return head_->forward(context, parameters, gathered, m, width, out);
}

}  // namespace chorus

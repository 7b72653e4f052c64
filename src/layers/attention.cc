#include "layers/attention.h"

#include <cmath>

#include "base/check.h"
#include "kernels/attention_split.h"
#include "kernels/elementwise.h"

namespace chorus {

Attention::Attention(Parameters& parameters, TensorParallel tp, const std::string& prefix, const Shape& shape)
    : shape_(shape),
      qkv_(parameters, tp, prefix,
           {shape.hidden_size, shape.heads, shape.kv_heads, shape.head_dim, shape.qkv_bias, shape.fused_qkv}),
      output_(parameters, tp, {prefix + ".o_proj", shape.hidden_size, shape.output_bias},
              std::int64_t{shape.heads} * shape.head_dim, shape.heads) {
  if (!shape.head_norms.q.empty()) {
    q_norm_.emplace(parameters, prefix + "." + shape.head_norms.q, shape.head_dim, shape.norm_eps, false);
    k_norm_.emplace(parameters, prefix + "." + shape.head_norms.k, shape.head_dim, shape.norm_eps, false);
  }
}

void Attention::norm_heads(const LayerContext& context, const Parameters& parameters, float* qkv,
                           std::int64_t rows) const {
  const std::int64_t q_width = std::int64_t{qkv_.heads()} * shape_.head_dim;
  q_norm_->forward_heads(context, parameters, qkv, rows, qkv_.heads(), qkv_.rows());
  k_norm_->forward_heads(context, parameters, qkv + q_width, rows, qkv_.kv_heads(), qkv_.rows());
}

Result<void> Attention::add_to(const LayerContext& context, const Parameters& parameters,
                               const RotaryTable& rotary_table, const KvCacheLayer& cache,
                               std::span<const AttentionSequence> sequences, const std::int32_t* positions,
                               const float* x, std::int64_t rows, float* residual) const {
  const Scratch::Scope scope(context.scratch);
  const std::int64_t width = qkv_.rows();
  const std::int64_t q_width = std::int64_t{qkv_.heads()} * shape_.head_dim,
                     kv_width = std::int64_t{qkv_.kv_heads()} * shape_.head_dim;
  float* qkv = context.scratch.take_array<float>(rows * width);
  float* mixed = context.scratch.take_array<float>(rows * q_width);

  qkv_.forward(context, parameters, x, rows, shape_.hidden_size, qkv, width);
  if (q_norm_ && shape_.head_norms.before_rotary) norm_heads(context, parameters, qkv, rows);
  if (shape_.is_rotary) {  // q and k lie side by side and turn alike
    rotary(context.pool, context.isa, qkv, rows, qkv_.heads() + qkv_.kv_heads(), shape_.head_dim,
           rotary_table.rotary_dim(), width, positions, rotary_table.cos_sin());
  }
  if (q_norm_ && !shape_.head_norms.before_rotary) norm_heads(context, parameters, qkv, rows);
  kv_write(context.pool, context.isa, cache, sequences, qkv + q_width, width, qkv + q_width + kv_width, width);
  CHORUS_TRY_VOID(attend(context, cache, sequences, qkv, mixed));
  return output_.add_to(context, parameters, {mixed, rows, q_width}, residual, shape_.hidden_size);
}

Result<void> Attention::attend(const LayerContext& context, const KvCacheLayer& cache,
                               std::span<const AttentionSequence> sequences, const float* qkv, float* mixed) const {
  const std::int64_t width = qkv_.rows(), q_width = std::int64_t{qkv_.heads()} * shape_.head_dim;
  const double usual_scale = 1.0 / std::sqrt(static_cast<double>(shape_.head_dim));
  const auto scale = static_cast<float>(shape_.scale > 0 ? shape_.scale : usual_scale);
  const AttentionParams params = {qkv_.heads(), scale, shape_.window};
  if (cache.share.count == 1) {
    attention(context.pool, context.scratch, context.isa, cache, sequences, params, qkv, width, mixed, q_width);
    return {};
  }
  CHECK(context.cp != nullptr && context.cp->size() == cache.share.count && context.cp->rank() == cache.share.index,
        "share {} of {} is not this rank's", cache.share.index, cache.share.count);
  SplitAttention split(context.pool, context.scratch, context.isa, cache, sequences, params, qkv, width, mixed,
                       q_width);
  while (split.next()) {
    split.compute();
    CHORUS_TRY_VOID(context.cp->all_gather_v(std::as_bytes(split.own()), split.bytes_of_shares(),
                                             std::as_writable_bytes(split.all())));
    split.finish();
  }
  return {};
}

}  // namespace chorus

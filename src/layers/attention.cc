#include "layers/attention.h"

#include <cmath>

#include "base/check.h"
#include "kernels/attention_split.h"

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

void Attention::norm_queries_and_keys(const LayerContext& context, const Parameters& parameters,
                                      const View& qkv) const {
  const std::int64_t q_width = std::int64_t{qkv_.heads()} * shape_.head_dim,
                     k_width = std::int64_t{qkv_.kv_heads()} * shape_.head_dim;
  q_norm_->forward_heads(context, parameters, qkv.columns_from(0, q_width));
  k_norm_->forward_heads(context, parameters, qkv.columns_from(q_width, k_width));
}

Result<void> Attention::add_to(const LayerContext& context, const Parameters& parameters,
                               const RotaryTable& rotary_table, const KvCacheLayer& cache, const StepInput& step,
                               const ProductInput& x, const View& residual) const {
  Device& device = context.device;
  const Scratch::Scope scope(device.scratch());
  const QkvRows rows{qkv_.forward(context, parameters, x), qkv_.heads()};
  Turning turning{shape_.is_rotary ? rotary_table.rotary_dim() : 0, rotary_table.cos_sin()};
  if (q_norm_ && shape_.head_norms.before_rotary) norm_queries_and_keys(context, parameters, rows.qkv);
  if (q_norm_ && !shape_.head_norms.before_rotary) {
    if (shape_.is_rotary) rotary(device, rows, cache.layout, step, turning);
    turning.rotary_dim = 0;
    norm_queries_and_keys(context, parameters, rows.qkv);
  }
  const View q = kv_write(device, cache, rows, step, turning);
  const View mixed = device.take(device.product_dtype(), q.rows, std::int64_t{qkv_.heads()} * shape_.head_dim);
  CHORUS_TRY_VOID(attend(context, cache, step, q, mixed));
  return output_.add_to(context, parameters, {mixed}, residual);
}

Result<void> Attention::attend(const LayerContext& context, const KvCacheLayer& cache, const StepInput& step,
                               const View& q, const View& mixed) const {
  const double usual_scale = 1.0 / std::sqrt(static_cast<double>(shape_.head_dim));
  const auto scale = static_cast<float>(shape_.scale > 0 ? shape_.scale : usual_scale);
  const AttentionParams params = {qkv_.heads(), scale, shape_.window};
  if (cache.share.count == 1) {
    attention(context.device, cache, step, params, q, mixed);
    return {};
  }
  CHECK(context.cp != nullptr && context.cp->size() == cache.share.count && context.cp->rank() == cache.share.index,
        "share {} of {} is not this rank's", cache.share.index, cache.share.count);
  CpuDevice& cpu = context.cpu();
  SplitAttention split(cpu.pool(), cpu.scratch(), cpu.isa(), cache, step.sequences, params, q.floats(), q.stride,
                       mixed.floats(), mixed.stride);
  while (split.next()) {
    split.compute();
    CHORUS_TRY_VOID(context.cp->all_gather_v(std::as_bytes(split.own()), split.bytes_of_shares(),
                                             std::as_writable_bytes(split.all())));
    split.finish();
  }
  return {};
}

}  // namespace chorus

#include "layers/latent_attention.h"

#include <algorithm>

#include "base/check.h"
#include "kernels/ops.h"
#include "layers/attention.h"

namespace chorus {
namespace {

template <typename Optional, typename... Arguments>
Optional only_if(bool there, Arguments&&... arguments) {
  return there ? Optional(std::in_place, std::forward<Arguments>(arguments)...) : std::nullopt;
}

}  // namespace

LatentAttention::LatentAttention(Parameters& parameters, TensorParallel tp, const std::string& prefix,
                                 const Shape& shape)
    : shape_(shape),
      heads_(shape.heads / tp.size),
      query_down_(only_if<std::optional<ColumnParallelLinear>>(
          shape.query_rank > 0, parameters, TensorParallel{},
          MatrixName{prefix + ".q_a_proj", shape.query_rank, shape.bias}, shape.hidden_size)),
      query_norm_(only_if<std::optional<Norm>>(shape.query_rank > 0, parameters, prefix + ".q_a_layernorm",
                                               shape.query_rank, shape.norm_eps)),
      query_(parameters, tp,
             {prefix + (shape.query_rank > 0 ? ".q_b_proj" : ".q_proj"), std::int64_t{shape.heads} * key_dim(), false,
              0, 0, false, 0, 0, 1, HeadRows{key_dim(), shape.still_dim, shape.rotary_dim, shape.pairs}},
             shape.query_rank > 0 ? shape.query_rank : shape.hidden_size),
      down_(parameters, TensorParallel{},
            {prefix + ".kv_a_proj_with_mqa", shape.rank + shape.rotary_dim, shape.bias, 0, 0, false, 0, 0, 1,
             HeadRows{shape.rank + shape.rotary_dim, shape.rank, shape.rotary_dim, shape.pairs}},
            shape.hidden_size),
      norm_(parameters, prefix + ".kv_a_layernorm", shape.rank, shape.norm_eps),
      up_(parameters, tp, {prefix + ".kv_b_proj", std::int64_t{shape.heads} * (shape.still_dim + shape.value_dim)},
          shape.rank),
      output_(parameters, tp, {prefix + ".o_proj", shape.hidden_size, shape.bias},
              std::int64_t{shape.heads} * shape.value_dim, shape.heads) {
  CHECK(shape.value_dim <= key_dim(), "values of {}, keys of {}", shape.value_dim, key_dim());
}

View LatentAttention::queries(const LayerContext& context, const Parameters& parameters, const ProductInput& x) const {
  if (!query_down_) return query_.forward(context, parameters, x);
  const View narrow = query_down_->forward(context, parameters, x);
  query_norm_->forward(context, parameters, narrow, narrow);
  return query_.forward(context, parameters, {narrow});
}

View LatentAttention::expand(const LayerContext& context, const Parameters& parameters, const ProductInput& x) const {
  CpuDevice& cpu = context.cpu();
  const std::int64_t width = std::int64_t{heads_} * key_dim();
  const View qkv = cpu.take(DType::float32, x.rows.rows, 3 * width);
  const Scratch::Scope scope(cpu.scratch());
  const View q = queries(context, parameters, x), narrow = down_.forward(context, parameters, x);
  const View row = narrow.columns_from(shape_.rotary_dim, shape_.rank);
  norm_.forward(context, parameters, row, row);
  const View up = up_.forward(context, parameters, {row});
  cpu.pool().for_range(qkv.rows, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      float* to = qkv.floats() + i * qkv.stride;
      std::copy_n(q.floats() + i * q.stride, width, to);
      const float* turning = narrow.floats() + i * narrow.stride;
      const float* from = up.floats() + i * up.stride;
      float *key = to + width, *value = key + width;
      for (int head = 0; head < heads_; ++head, key += key_dim(), value += key_dim()) {
        std::copy_n(turning, shape_.rotary_dim, key);
        std::copy_n(from, shape_.still_dim, key + shape_.rotary_dim);
        std::copy_n(from + shape_.still_dim, shape_.value_dim, value);
        std::fill(value + shape_.value_dim, value + key_dim(), 0.0F);
        from += shape_.still_dim + shape_.value_dim;
      }
    }
  });
  return qkv;
}

Result<void> LatentAttention::add_to(const LayerContext& context, const Parameters& parameters,
                                     std::span<const RotaryTable> rotary_tables, const KvCacheLayer& cache,
                                     const StepInput& step, const ProductInput& x, const View& residual) const {
  CpuDevice& cpu = context.cpu();
  const Scratch::Scope scope(cpu.scratch());
  const QkvRows rows{expand(context, parameters, x), heads_};
  const Turning turning{rotary_tables.front().rotary_dim(), rotary_tables.front().cos_sin()};
  const View q = kv_write(cpu, cache, rows, step, turning);
  const View mixed = cpu.take(DType::float32, q.rows, std::int64_t{heads_} * key_dim()),
             values = cpu.take(DType::float32, q.rows, std::int64_t{heads_} * shape_.value_dim);
  CHORUS_TRY_VOID(attend(context, cache, step, {heads_, static_cast<float>(shape_.scale)}, q, mixed));
  for (std::int64_t row = 0; row < mixed.rows; ++row) {
    for (int head = 0; head < heads_; ++head) {
      std::copy_n(mixed.floats() + row * mixed.stride + std::int64_t{head} * key_dim(), shape_.value_dim,
                  values.floats() + row * values.stride + std::int64_t{head} * shape_.value_dim);
    }
  }
  return output_.add_to(context, parameters, {values}, residual);
}

}  // namespace chorus

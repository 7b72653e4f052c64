#include "layers/attention.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "kernels/attention_split.h"

namespace chorus {

Attention::Attention(Parameters& parameters, TensorParallel tp, const std::string& prefix, const Shape& shape)
    : shape_(shape),
      qkv_(parameters, tp, prefix,
           {shape.hidden_size, shape.heads, shape.kv_heads, shape.head_dim, shape.qkv_bias, shape.q, shape.k, shape.v,
            shape.transposed, shape.head_rows, shape.gated}),
      output_(parameters, tp,
              {prefix + "." + shape.output, shape.hidden_size, shape.output_bias, 0, 0, shape.transposed},
              std::int64_t{shape.heads} * shape.head_dim, shape.heads) {
  const HeadNorms& norms = shape.head_norms;
  if (!norms.q.empty()) {
    const bool all = norms.of == HeadNorms::Of::all_heads;
    const auto norm = [&](const std::string& name, int heads) {
      return Norm(parameters, prefix + "." + name, std::int64_t{all ? heads : 1} * shape.head_dim, shape.norm_eps,
                  norms.kind, shape.head_rows);
    };
    q_norm_ = norm(norms.q, shape.heads);
    k_norm_ = norm(norms.k, shape.kv_heads);
  }
  if (shape.gated) {
    std::vector<ParameterSource> sources;
    const std::int64_t dim = shape.head_dim, rows = 2 * shape.heads * dim;
    for (std::int64_t head = 0; head < qkv_.heads(); ++head) {
      const std::int64_t first = 2 * (tp.rank * qkv_.heads() + head) * dim + dim;
      sources.push_back({prefix + "." + shape.q + ".weight", {rows, shape.hidden_size}, first, dim, 0});
    }
    gate_ = parameters.add_linear({qkv_.heads() * dim, shape.hidden_size, 1}, std::move(sources));
  }
  if (!shape.sinks.empty()) {
    const std::int64_t own = qkv_.heads();
    sinks_ = parameters.add_vector(own, {{prefix + "." + shape.sinks, {shape.heads}, tp.rank * own, own, 0}});
  }
}

Result<void> Attention::norm_all_heads(const LayerContext& context, const Parameters& parameters, const Norm& norm,
                                       int heads, const View& own) const {
  const int ranks = context.tp.size();
  if (ranks == 1) {
    norm.forward(context, parameters, own, own);
    return {};
  }
  Device& device = context.device;
  const Scratch::Scope scope(device.scratch());
  const View sent = device.take(DType::float32, own.rows, own.columns),
             all = device.take(DType::float32, ranks * own.rows, own.columns),
             whole = device.take(DType::float32, own.rows, std::int64_t{heads} * shape_.head_dim);
  // Ranks share a head of k where there are fewer heads than ranks.
  const auto place = [&](int rank, std::int64_t row) {
    return whole.floats() + row * whole.stride + std::int64_t{rank * heads / ranks} * shape_.head_dim;
  };
  for (std::int64_t row = 0; row < own.rows; ++row)
    std::copy_n(own.floats() + row * own.stride, own.columns, sent.floats() + row * sent.stride);
  const auto floats = static_cast<std::size_t>(own.rows * own.columns);
  const std::span<std::size_t> sizes(device.scratch().take_array<std::size_t>(ranks), static_cast<std::size_t>(ranks));
  std::ranges::fill(sizes, floats * sizeof(float));
  CHORUS_TRY_VOID(context.tp.all_gather_v(std::as_bytes(std::span(sent.floats(), floats)), sizes,
                                          std::as_writable_bytes(std::span(all.floats(), floats * sizes.size()))));
  for (int rank = 0; rank < ranks; ++rank) {
    for (std::int64_t row = 0; row < own.rows; ++row)
      std::copy_n(all.floats() + (rank * own.rows + row) * own.columns, own.columns, place(rank, row));
  }
  norm.forward(context, parameters, whole, whole);
  for (std::int64_t row = 0; row < own.rows; ++row)
    std::copy_n(place(context.tp.rank(), row), own.columns, own.floats() + row * own.stride);
  return {};
}

Result<void> Attention::norm_queries_and_keys(const LayerContext& context, const Parameters& parameters,
                                              const View& qkv) const {
  const std::int64_t q_width = std::int64_t{qkv_.heads()} * shape_.head_dim,
                     k_width = std::int64_t{qkv_.kv_heads()} * shape_.head_dim;
  const View q = qkv.columns_from(0, q_width), k = qkv.columns_from(q_width, k_width);
  if (shape_.head_norms.of == HeadNorms::Of::all_heads) {
    CHORUS_TRY_VOID(norm_all_heads(context, parameters, *q_norm_, shape_.heads, q));
    return norm_all_heads(context, parameters, *k_norm_, shape_.kv_heads, k);
  }
  q_norm_->forward_heads(context, parameters, q);
  k_norm_->forward_heads(context, parameters, k);
  return {};
}

Result<void> Attention::add_to(const LayerContext& context, const Parameters& parameters,
                               std::span<const RotaryTable> rotary_tables, const KvCacheLayer& cache,
                               const StepInput& step, const ProductInput& x, const View& residual) const {
  Device& device = context.device;
  const Scratch::Scope scope(device.scratch());
  const QkvRows rows{qkv_.forward(context, parameters, x), qkv_.heads()};
  Turning turning;
  if (shape_.is_rotary) {
    const RotaryTable& table = rotary_tables[static_cast<std::size_t>(shape_.rotary_table)];
    turning = {table.rotary_dim(), table.cos_sin()};
  }
  if (q_norm_) {
    if (shape_.head_norms.of == HeadNorms::Of::each_head_turned) {
      if (shape_.is_rotary) rotary(device, rows, cache.layout, step, turning);
      turning.rotary_dim = 0;
    }
    CHORUS_TRY_VOID(norm_queries_and_keys(context, parameters, rows.qkv));
  }
  const View q = kv_write(device, cache, rows, step, turning);
  const View mixed = device.take(device.product_dtype(), q.rows, std::int64_t{qkv_.heads()} * shape_.head_dim);
  CHORUS_TRY_VOID(attend(context, cache, step, params(parameters), q, mixed));
  if (shape_.gated) gate(context, parameters, x, mixed);
  return output_.add_to(context, parameters, {mixed}, residual);
}

void Attention::gate(const LayerContext& context, const Parameters& parameters, const ProductInput& x,
                     const View& mixed) const {
  CpuDevice& cpu = context.cpu();
  const Scratch::Scope scope(cpu.scratch());
  const View gates = take_product(cpu, parameters.linear(gate_), mixed.rows);
  linear(cpu, parameters.linear(gate_), x, gates);
  for (std::int64_t row = 0; row < mixed.rows; ++row) {
    float* to = mixed.floats() + row * mixed.stride;
    const float* by = gates.floats() + row * gates.stride;
    for (std::int64_t i = 0; i < mixed.columns; ++i) to[i] /= 1.0F + std::exp(-by[i]);
  }
}

AttentionParams Attention::params(const Parameters& parameters) const {
  const double usual_scale = 1.0 / std::sqrt(static_cast<double>(shape_.head_dim));
  const auto scale = static_cast<float>(shape_.scale > 0 ? shape_.scale : usual_scale);
  const float* sinks = shape_.sinks.empty() ? nullptr : parameters.vector(sinks_);
  return {qkv_.heads(), scale, shape_.window, static_cast<float>(shape_.softcap), sinks};
}

Result<void> attend(const LayerContext& context, const KvCacheLayer& cache, const StepInput& step,
                    const AttentionParams& params, const View& q, const View& mixed) {
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

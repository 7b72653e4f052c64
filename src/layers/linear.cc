#include "layers/linear.h"

#include <algorithm>

#include "base/check.h"

namespace chorus {
namespace {

ParameterSource rows_of(const std::string& prefix, std::int64_t rows, std::int64_t columns, std::int64_t first,
                        std::int64_t count) {
  return {prefix + ".weight", {rows, columns}, first, count, 0};
}

ParameterSource bias_of(const std::string& prefix, std::int64_t rows, std::int64_t first, std::int64_t count) {
  return {prefix + ".bias", {rows}, first, count, 0};
}

}  // namespace

GateUpParallelLinear::GateUpParallelLinear(Parameters& parameters, TensorParallel tp, std::int64_t columns,
                                           const MatrixName& gate, const MatrixName& up) {
  std::vector<ParameterSource> weights, biases;
  for (const MatrixName& matrix : {gate, up}) {
    CHECK(matrix.rows % tp.size == 0, "{} rows of {} over {} ranks", matrix.rows, matrix.prefix, tp.size);
    const std::int64_t count = matrix.rows / tp.size, first = matrix.first_row + tp.rank * count;
    const std::int64_t rows = std::max(matrix.rows, matrix.rows_of_all);
    weights.push_back(rows_of(matrix.prefix, rows, columns, first, count));
    if (matrix.bias) biases.push_back(bias_of(matrix.prefix, rows, first, count));
    rows_ += count;
  }
  weight_ = parameters.add_linear({rows_, columns, 1}, std::move(weights));
  has_bias_ = !biases.empty();
  if (has_bias_) bias_ = parameters.add_vector(rows_, std::move(biases));
}

LinearInput GateUpParallelLinear::forward(const LayerContext& context, const Parameters& parameters,
                                          const LinearInput& x, const RowParallelLinear& next) const {
  const float* bias = has_bias_ ? parameters.vector(bias_) : nullptr;
  return gated_input(context.pool, context.scratch, parameters.linear(weight_), bias, x, next.weight(parameters));
}

QkvParallelLinear::QkvParallelLinear(Parameters& parameters, TensorParallel tp, const std::string& prefix,
                                     const Shape& shape) {
  CHECK(shape.heads % tp.size == 0, "{} heads over {} ranks", shape.heads, tp.size);
  heads_ = shape.heads / tp.size;
  const bool replicate = shape.kv_heads < tp.size;
  CHECK(replicate ? tp.size % shape.kv_heads == 0 : shape.kv_heads % tp.size == 0, "{} kv heads over {} ranks",
        shape.kv_heads, tp.size);
  kv_heads_ = replicate ? 1 : shape.kv_heads / tp.size;
  const int first_kv_head = replicate ? tp.rank * shape.kv_heads / tp.size : tp.rank * kv_heads_;

  struct Part {
    const char* name;
    std::int64_t rows, first, count;
  };
  const Part parts[] = {{".q_proj", std::int64_t{shape.heads} * shape.head_dim,
                         std::int64_t{tp.rank} * heads_ * shape.head_dim, std::int64_t{heads_} * shape.head_dim},
                        {".k_proj", std::int64_t{shape.kv_heads} * shape.head_dim,
                         std::int64_t{first_kv_head} * shape.head_dim, std::int64_t{kv_heads_} * shape.head_dim},
                        {".v_proj", std::int64_t{shape.kv_heads} * shape.head_dim,
                         std::int64_t{first_kv_head} * shape.head_dim, std::int64_t{kv_heads_} * shape.head_dim}};
  std::vector<ParameterSource> weights, biases;
  const std::int64_t all_rows = parts[0].rows + parts[1].rows + parts[2].rows;
  std::int64_t begin = 0;  // of the part in a fused matrix
  for (const Part& part : parts) {
    const std::string name = prefix + (shape.fused ? ".qkv_proj" : part.name);
    const std::int64_t rows = shape.fused ? all_rows : part.rows, first = (shape.fused ? begin : 0) + part.first;
    weights.push_back(rows_of(name, rows, shape.hidden_size, first, part.count));
    if (shape.bias) biases.push_back(bias_of(name, rows, first, part.count));
    rows_ += part.count;
    begin += part.rows;
  }
  weight_ = parameters.add_linear({rows_, shape.hidden_size, 1}, std::move(weights));
  has_bias_ = shape.bias;
  if (has_bias_) bias_ = parameters.add_vector(rows_, std::move(biases));
}

void QkvParallelLinear::forward(const LayerContext& context, const Parameters& parameters, const float* x,
                                std::int64_t m, std::int64_t ldx, float* y, std::int64_t ldy) const {
  const LinearEpilogue epilogue{has_bias_ ? parameters.vector(bias_) : nullptr, false};
  linear(context.pool, context.scratch, parameters.linear(weight_), {x, m, ldx}, y, ldy, epilogue);
}

RowParallelLinear::RowParallelLinear(Parameters& parameters, TensorParallel tp, const MatrixName& matrix,
                                     std::int64_t columns, int units)
    : rows_(matrix.rows), has_bias_(matrix.bias) {
  const int segments = reduction_segments(units);
  CHECK(segments % tp.size == 0, "{} segments over {} ranks", segments, tp.size);
  const std::int64_t own = columns / tp.size;
  weight_ = parameters.add_linear({rows_, own, segments / tp.size},
                                  {{matrix.prefix + ".weight", {rows_, columns}, 0, rows_, tp.rank * own}});
  if (has_bias_) bias_ = parameters.add_vector(rows_, {bias_of(matrix.prefix, rows_, 0, rows_)});
}

Result<void> RowParallelLinear::add_to(const LayerContext& context, const Parameters& parameters, const LinearInput& x,
                                       float* y, std::int64_t ldy) const {
  const float* bias = has_bias_ ? parameters.vector(bias_) : nullptr;
  if (context.tp.size() == 1) {  // the same operations as below, fused: y + (sum + bias)
    linear(context.pool, context.scratch, parameters.linear(weight_), x, y, ldy, {bias, true});
    return {};
  }
  const Scratch::Scope scope(context.scratch);
  const std::int64_t m = x.m;
  float* sum = context.scratch.take_array<float>(m * rows_);
  partial(context, parameters, x, sum, rows_);
  CHORUS_TRY_VOID(context.tp.all_reduce_tree({sum, static_cast<std::size_t>(m * rows_)}));
  context.pool.for_range(m, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      for (std::int64_t i = 0; i < rows_; ++i) {
        const float whole = bias != nullptr ? sum[row * rows_ + i] + bias[i] : sum[row * rows_ + i];
        y[row * ldy + i] += whole;
      }
    }
  });
  return {};
}

void RowParallelLinear::partial(const LayerContext& context, const Parameters& parameters, const LinearInput& x,
                                float* y, std::int64_t ldy) const {
  linear(context.pool, context.scratch, parameters.linear(weight_), x, y, ldy, {});
}

}  // namespace chorus

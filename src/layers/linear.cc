#include "layers/linear.h"

#include <algorithm>

#include "base/check.h"

namespace chorus {
namespace {

// Rows [first, first + count) of the matrix of that name, and their biases.
ParameterSource rows_of(const MatrixName& matrix, std::int64_t columns, std::int64_t first, std::int64_t count) {
  const std::int64_t rows = std::max(matrix.rows, matrix.rows_of_all),
                     from = matrix.first_row + first * matrix.row_step;
  if (matrix.experts > 0) {
    const std::int64_t before = matrix.expert * columns;
    return {matrix.prefix, {matrix.experts, columns, rows}, from, count, before, {}, true, matrix.row_step};
  }
  if (matrix.transposed) return {matrix.prefix + ".weight", {columns, rows}, from, count, 0, {}, true};
  return {matrix.prefix + ".weight", {rows, columns}, from, count, 0, matrix.heads};
}

ParameterSource bias_of(const MatrixName& matrix, std::int64_t first, std::int64_t count) {
  const std::int64_t rows = std::max(matrix.rows, matrix.rows_of_all),
                     from = matrix.first_row + first * matrix.row_step;
  if (matrix.experts > 0) {
    return {matrix.prefix + "_bias", {matrix.experts, rows}, from, count, matrix.expert, {}, true, matrix.row_step};
  }
  return {matrix.prefix + ".bias", {rows}, from, count, 0, matrix.heads};
}

// m times the same row.
View repeated(const Device& device, const float* row, std::int64_t m, std::int64_t columns) {
  View view{nullptr, DType::float32, m, columns, 0, device.kind()};
  view.data = reinterpret_cast<std::byte*>(const_cast<float*>(row));
  return view;
}

// W x + bias, from the scratch; bias null: none.
View product(Device& device, const PackedLinear& weight, const float* bias, const ProductInput& x) {
  const View y = take_product(device, weight, x.rows.rows);
  linear(device, weight, x, y, {bias, false});
  return y;
}

}  // namespace

GateUpParallelLinear::GateUpParallelLinear(Parameters& parameters, TensorParallel tp, std::int64_t columns,
                                           const MatrixName& gate, const MatrixName& up, int next_segments,
                                           Activation activation)
    : activation_(activation) {
  std::vector<ParameterSource> weights, biases;
  for (const MatrixName& matrix : {gate, up}) {
    CHECK(matrix.rows % tp.size == 0, "{} rows of {} over {} ranks", matrix.rows, matrix.prefix, tp.size);
    const std::int64_t count = matrix.rows / tp.size, first = tp.rank * count;
    weights.push_back(rows_of(matrix, columns, first, count));
    if (matrix.bias) biases.push_back(bias_of(matrix, first, count));
    rows_ += count;
  }
  weight_ = parameters.add_linear({rows_, columns, 1, next_segments}, std::move(weights));
  has_bias_ = !biases.empty();
  if (has_bias_) bias_ = parameters.add_vector(rows_, std::move(biases), next_segments);
}

ProductInput GateUpParallelLinear::forward(const LayerContext& context, const Parameters& parameters,
                                           const ProductInput& x, const RowParallelLinear& next) const {
  const float* bias = has_bias_ ? parameters.vector(bias_) : nullptr;
  return gated_input(context.device, parameters.linear(weight_), bias, x, next.weight(parameters), activation_);
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
    std::string name;
    bool turns, is_q;
    std::int64_t rows, first, count;
  };
  const bool fused = shape.q == shape.k;
  const Part parts[] = {{shape.q, true, true, std::int64_t{shape.heads} * shape.head_dim,
                         std::int64_t{tp.rank} * heads_ * shape.head_dim, std::int64_t{heads_} * shape.head_dim},
                        {shape.k, true, false, std::int64_t{shape.kv_heads} * shape.head_dim,
                         std::int64_t{first_kv_head} * shape.head_dim, std::int64_t{kv_heads_} * shape.head_dim},
                        {shape.v, false, false, std::int64_t{shape.kv_heads} * shape.head_dim,
                         std::int64_t{first_kv_head} * shape.head_dim, std::int64_t{kv_heads_} * shape.head_dim}};
  std::vector<ParameterSource> weights, biases;
  const std::int64_t all_rows = parts[0].rows + parts[1].rows + parts[2].rows;
  std::int64_t begin = 0;  // of the part in a fused matrix
  for (const Part& part : parts) {
    const MatrixName matrix{prefix + "." + part.name,     part.rows,       shape.bias, fused ? begin : 0,
                            fused ? all_rows : part.rows, shape.transposed};
    if (part.is_q && shape.q_every_second) {
      for (std::int64_t head = part.first / shape.head_dim; head < (part.first + part.count) / shape.head_dim; ++head) {
        weights.push_back(
            rows_of({matrix.prefix, 2 * part.rows}, shape.hidden_size, 2 * head * shape.head_dim, shape.head_dim));
      }
      rows_ += part.count;
      continue;
    }
    weights.push_back(rows_of(matrix, shape.hidden_size, part.first, part.count));
    if (shape.bias) biases.push_back(bias_of(matrix, part.first, part.count));
    if (part.turns) {
      weights.back().heads = shape.head_rows;
      if (shape.bias) biases.back().heads = shape.head_rows;
    }
    rows_ += part.count;
    begin += part.rows;
  }
  weight_ = parameters.add_linear({rows_, shape.hidden_size, 1}, std::move(weights));
  has_bias_ = shape.bias;
  if (has_bias_) bias_ = parameters.add_vector(rows_, std::move(biases));
}

ColumnParallelLinear::ColumnParallelLinear(Parameters& parameters, TensorParallel tp, const MatrixName& matrix,
                                           std::int64_t columns)
    : has_bias_(matrix.bias) {
  CHECK(matrix.rows % tp.size == 0, "{} rows of {} over {} ranks", matrix.rows, matrix.prefix, tp.size);
  const std::int64_t count = matrix.rows / tp.size, first = tp.rank * count;
  weight_ = parameters.add_linear({count, columns, 1}, {rows_of(matrix, columns, first, count)});
  if (has_bias_) bias_ = parameters.add_vector(count, {bias_of(matrix, first, count)});
}

View ColumnParallelLinear::forward(const LayerContext& context, const Parameters& parameters,
                                   const ProductInput& x) const {
  return product(context.device, parameters.linear(weight_), has_bias_ ? parameters.vector(bias_) : nullptr, x);
}

View QkvParallelLinear::forward(const LayerContext& context, const Parameters& parameters,
                                const ProductInput& x) const {
  return product(context.device, parameters.linear(weight_), has_bias_ ? parameters.vector(bias_) : nullptr, x);
}

RowParallelLinear::RowParallelLinear(Parameters& parameters, TensorParallel tp, const MatrixName& matrix,
                                     std::int64_t columns, int units)
    : rows_(matrix.rows), has_bias_(matrix.bias) {
  const int segments = reduction_segments(units);
  CHECK(segments % tp.size == 0, "{} segments over {} ranks", segments, tp.size);
  const std::int64_t own = columns / tp.size;
  ParameterSource source = rows_of(matrix, columns, 0, rows_);
  source.first_column += tp.rank * own;
  weight_ = parameters.add_linear({rows_, own, segments / tp.size}, {std::move(source)});
  if (has_bias_) bias_ = parameters.add_vector(rows_, {bias_of(matrix, 0, rows_)});
}

Result<void> RowParallelLinear::add_to(const LayerContext& context, const Parameters& parameters, const ProductInput& x,
                                       const View& y) const {
  const float* bias = has_bias_ ? parameters.vector(bias_) : nullptr;
  if (context.tp.size() == 1) {  // the same operations as below, fused: y + (sum + bias)
    linear(context.device, parameters.linear(weight_), x, y, {bias, true});
    return {};
  }
  const Scratch::Scope scope(context.device.scratch());
  const std::int64_t m = x.rows.rows;
  const View sum = context.device.take(DType::float32, m, rows_);
  partial(context, parameters, x, sum);
  CHORUS_TRY_VOID(context.tp.all_reduce_tree({sum.floats(), static_cast<std::size_t>(m * rows_)}));
  if (bias != nullptr) add_scaled(context.device, repeated(context.device, bias, m, rows_), 1.0F, sum);
  add_scaled(context.device, sum, 1.0F, y);
  return {};
}

void RowParallelLinear::partial(const LayerContext& context, const Parameters& parameters, const ProductInput& x,
                                const View& y) const {
  linear(context.device, parameters.linear(weight_), x, y);
}

}  // namespace chorus

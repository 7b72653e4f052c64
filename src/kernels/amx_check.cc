#include "kernels/amx_check.h"

#include <cmath>
#include <vector>

#include "kernels/linear.h"
#include "tensor/scratch.h"

namespace chorus {
namespace {

// Small multiples of 1/64: exact in bfloat16, and so are all their sums in float32.
constexpr LinearShape shape = {40, std::int64_t{2} * 37, 2};
constexpr std::int64_t m = 19;

float weight_at(std::int64_t row, std::int64_t column) {
  return static_cast<float>((row * 7 + column * 13) % 31 - 15) / 64;
}

SourceRows weight_row(const void* context, std::int64_t row) {
  const float* data = static_cast<const float*>(context) + row * shape.columns;
  return {reinterpret_cast<const std::byte*>(data), DType::float32, shape.columns};
}

std::vector<float> product(Isa isa, const std::vector<float>& weights, const std::vector<float>& x) {
  struct alignas(64) Line {
    std::byte bytes[64];
  };
  std::vector<Line> packed(packed_linear_bytes(isa, DType::bfloat16, shape) / sizeof(Line));
  auto* data = reinterpret_cast<std::byte*>(packed.data());
  for (std::int64_t panel = 0; panel * linear_panel_rows(isa, DType::bfloat16) < shape.rows; ++panel) {
    pack_linear_panel(isa, DType::bfloat16, shape, panel, weight_row, weights.data(), data);
  }
  ThreadPool pool(1);
  Scratch scratch;
  std::vector<float> y(static_cast<std::size_t>(m * shape.rows));
  linear(pool, scratch, {shape, DType::bfloat16, isa, data}, {x.data(), m, shape.columns}, y.data(), shape.rows);
  return y;
}

}  // namespace

bool amx_works() {
  std::vector<float> weights, x;
  for (std::int64_t i = 0; i < shape.rows * shape.columns; ++i) {
    weights.push_back(weight_at(i / shape.columns, i % shape.columns));
  }
  for (std::int64_t i = 0; i < m * shape.columns; ++i) x.push_back(weight_at(i, i / 3));
  return product(Isa::amx_bf16, weights, x) == product(Isa::scalar, weights, x);
}

}  // namespace chorus

#include "kernels/amx_check.h"

#include <cmath>
#include <vector>

#include "kernels/linear_kernel.h"
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

std::vector<float> product(Isa isa, LinearFormat format, const LinearKernel& kernel, const std::vector<float>& weights,
                           const std::vector<float>& x) {
  struct alignas(64) Line {
    std::byte bytes[64];
  };
  std::vector<Line> packed(packed_linear_bytes(isa, format, shape) / sizeof(Line));
  auto* data = reinterpret_cast<std::byte*>(packed.data());
  for (std::int64_t panel = 0; panel * linear_panel_rows(isa, format) < shape.rows; ++panel) {
    pack_linear_panel(isa, format, shape, panel, weight_row, weights.data(), data);
  }
  ThreadPool pool(1);
  Scratch scratch;
  std::vector<float> y(static_cast<std::size_t>(m * shape.rows));
  linear_with(kernel, pool, scratch, {shape, format, isa, data}, {x.data(), m, shape.columns}, y.data(), shape.rows,
              {});
  return y;
}

struct Operands {
  std::vector<float> weights, x;
};
Operands operands() {
  Operands made;
  for (std::int64_t i = 0; i < shape.rows * shape.columns; ++i) {
    made.weights.push_back(weight_at(i / shape.columns, i % shape.columns));
  }
  for (std::int64_t i = 0; i < m * shape.columns; ++i) made.x.push_back(weight_at(i, i / 3));
  return made;
}

}  // namespace

bool amx_works() {
  const Operands made = operands();
  const auto of = [&](Isa isa) {
    return product(isa, DType::bfloat16, linear_kernel(isa, DType::bfloat16), made.weights, made.x);
  };
  return of(Isa::amx_bf16) == of(Isa::scalar);
}

bool amx_int8_works() {
  const Operands made = operands();
  const auto of = [&](const LinearKernel& kernel) {
    return product(Isa::scalar, LinearFormat::int8, kernel, made.weights, made.x);
  };
  return of(group_kernel_amx()) == of(group_kernel_scalar());
}

}  // namespace chorus

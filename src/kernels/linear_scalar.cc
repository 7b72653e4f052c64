// The plain linear kernel: the oracle of the others.
#include <array>

#include "kernels/linear_kernel.h"

namespace chorus {
namespace {

// One segment in ascending column order.
float segment_sum(const float* x, const std::byte* w, DType dtype, std::int64_t columns) {
  float sum = 0;
  for (std::int64_t k = 0; k < columns; ++k) sum += x[k] * load_as_float(w, dtype, static_cast<std::size_t>(k));
  return sum;
}

// The balanced tree over segments [begin, begin + count).
float tree_sum(const LinearCall& call, const float* x, const std::byte* w, int begin, int count) {
  if (count > 1) {
    const float left = tree_sum(call, x, w, begin, count / 2);
    return left + tree_sum(call, x, w, begin + count / 2, count / 2);
  }
  const std::int64_t columns = segment_columns(call.weight.shape);
  const std::int64_t element_bytes = static_cast<std::int64_t>(bytes_of(call.weight.format.dtype));
  return segment_sum(x + begin * columns, w + begin * columns * element_bytes, call.weight.format.dtype, columns);
}

std::size_t no_bytes(const LinearShape&, std::int64_t) {
  return 0;
}

void prepare(const LinearCall&, std::int64_t, std::int64_t) {}

void compute(const LinearCall& call, const LinearRectangle& rectangle, std::byte*) {
  const std::int64_t bytes = panel_bytes(LinearLayout::rows, call.weight.format.dtype, call.weight.shape);
  for (std::int64_t n = rectangle.panel_begin; n < rectangle.panel_end; ++n) {
    for (std::int64_t i = call.block_begin(rectangle.block_begin); i < call.block_begin(rectangle.block_end); ++i) {
      float sum = tree_sum(call, call.x + i * call.ldx, call.weight.data + n * bytes, 0, call.weight.shape.segments);
      if (call.epilogue.bias != nullptr) sum += call.epilogue.bias[n];
      float& out = call.y[i * call.ldy + n];
      out = call.epilogue.accumulate ? out + sum : sum;
    }
  }
}

constexpr LinearKernel kernel = {16, 1, no_bytes, no_bytes, prepare, compute};

}  // namespace

const LinearKernel& linear_kernel_scalar() {
  return kernel;
}

}  // namespace chorus

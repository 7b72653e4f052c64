// The plain kernel of matrices in groups: the oracle of the others.
#include <cmath>
#include <limits>

#include "kernels/linear_groups.h"

namespace chorus {
namespace {

struct Quantise {
  static void group(const float* values, std::int8_t* codes, float* scale, std::int32_t* sum) {
    std::uint32_t largest_bits = 0;
    for (int i = 0; i < group_columns; ++i) {
      largest_bits = std::max(largest_bits, std::bit_cast<std::uint32_t>(values[i]) & 0x7fffffffU);
    }
    const auto largest = std::bit_cast<float>(largest_bits);
    const bool is_finite = largest_bits < 0x7f800000U, is_zero = is_finite && largest < smallest_group;
    const float inverse = is_zero || !is_finite ? 0 : 127 / largest;
    *scale = is_zero ? 0 : is_finite ? largest / 127 : std::numeric_limits<float>::quiet_NaN();
    *sum = 0;
    for (int i = 0; i < group_columns; ++i) {
      codes[i] = is_finite ? static_cast<std::int8_t>(std::nearbyint(values[i] * inverse)) : std::int8_t{0};
      *sum += codes[i];
    }
  }
};

// One group of one row of W: its codes less what they are stored with, its scale and minimum.
struct WeightGroup {
  int codes[group_columns];
  float scale, minimum;
};
WeightGroup weight_group(LinearFormat::Kind kind, const std::byte* record, std::int64_t row) {
  WeightGroup group{};
  const std::byte* half = record + row / group_half_rows * half_code_bytes(kind);
  for (std::int64_t column = 0; column < group_columns; ++column) {
    const std::int64_t within = kind == LinearFormat::int8 ? column : column % 16;
    const int byte = static_cast<int>(half[within / 4 * line_bytes + row % group_half_rows * 4 + within % 4]);
    const int nibble = column < 16 ? byte & 15 : byte >> 4;
    group.codes[column] = kind == LinearFormat::int8 ? (byte ^ 128) - 128 : nibble - code_offset(kind);
  }
  const std::byte* scales = record + scales_offset(kind);
  group.scale = load_as_float(scales, DType::float16, static_cast<std::size_t>(row));
  if (has_minimum(kind)) {
    group.minimum = load_as_float(scales + line_bytes, DType::float16, static_cast<std::size_t>(row));
  }
  if (kind == LinearFormat::int4_zero) group.minimum *= group.scale;
  return group;
}

float segment_sum(const LinearCall& call, const GroupRows& x, std::int64_t row, std::int64_t n, std::int64_t segment) {
  const LinearFormat::Kind kind = call.weight.format.kind;
  const LinearShape& shape = call.weight.shape;
  const std::byte* panel = call.weight.data + n / group_panel_rows * group_panel_bytes(kind, shape);
  const std::int64_t groups = segment_groups(shape);
  float sum = 0;
  for (std::int64_t group = segment * groups; group < (segment + 1) * groups; ++group) {
    const WeightGroup w = weight_group(kind, panel + group * record_bytes(kind), n % group_panel_rows);
    const std::int64_t cell = group * x.rows + row;
    std::int32_t product = 0;
    for (int k = 0; k < group_columns; ++k) product += w.codes[k] * x.codes[cell * group_columns + k];
    sum = std::fma(static_cast<float>(product), w.scale * x.scales[cell], sum);
    if (has_minimum(kind)) sum = std::fma(w.minimum, x.scaled_sums[cell], sum);
  }
  return sum;
}

// The balanced tree over segments [begin, begin + count).
float tree_sum(const LinearCall& call, const GroupRows& x, std::int64_t row, std::int64_t n, int begin, int count) {
  if (count == 1) return segment_sum(call, x, row, n, begin);
  const float left = tree_sum(call, x, row, n, begin, count / 2);
  return left + tree_sum(call, x, row, n, begin + count / 2, count / 2);
}

std::size_t workspace_bytes(const LinearShape&, std::int64_t) {
  return 0;
}

void compute(const LinearCall& call, const LinearRectangle& rectangle, std::byte*) {
  const LinearShape& shape = call.weight.shape;
  const std::int64_t end = std::min(shape.rows, rectangle.panel_end * group_panel_rows);
  for (std::int64_t block = rectangle.block_begin; block < rectangle.block_end; ++block) {
    const GroupRows x = group_rows(call, block);
    for (std::int64_t row = 0; row < block_rows_of(call, block); ++row) {
      float* y = call.y + (call.block_begin(block) + row) * call.ldy;
      for (std::int64_t n = rectangle.panel_begin * group_panel_rows; n < end; ++n) {
        float sum = tree_sum(call, x, row, n, 0, shape.segments);
        if (call.epilogue.bias != nullptr) sum += call.epilogue.bias[n];
        y[n] = call.epilogue.accumulate ? y[n] + sum : sum;
      }
    }
  }
}

constexpr LinearKernel kernel = {
    group_block_rows, tile_rows, group_prepared_bytes, workspace_bytes, prepare_group_rows<Quantise>, compute};

}  // namespace

const LinearKernel& group_kernel_scalar() {
  return kernel;
}

}  // namespace chorus

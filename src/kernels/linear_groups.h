// Products with matrices in groups (linear_format.h): what the packing and the kernels of each instruction set share.
//
// Numerics. x is cut as the rows of W are, and each group of it rounded to 8 bits: s = |largest| / 127, q = x / s to
// the nearest (ties to even). A group with a NaN or an infinity has a scale that is NaN. For each output and segment,
// from +0, groups in ascending order:
//   sum = fma(float(sum over k of q_w q_x), s_w s_x, sum), and with a minimum sum = fma(m_w, s_x float(sum of q_x),
//   sum); of a zero point z it is m_w = s_w (-z), which is exact
// then the segments' tree of linear.h. The sums over k are of integers, so exact in any order, and every product and
// sum of floats is one IEEE operation: all instruction sets give the same bits.
//
// Layout of a packed matrix, the same for all CPUs: [panel of 32 rows][segment][group] records of
//   codes    [2 halves of 16 rows][lines of 64 bytes], int8: 8 lines, line j has columns 4 j .. 4 j + 3 of each row in
//            turn; int4: 4 lines, line j has columns 4 j .. in the low halves of its bytes, 16 + 4 j .. in the high
//            ones
//   scales   [32] binary16
//   minima   [32] binary16, int4_minimum and int4_zero (-z) alone
// Missing rows and columns are such that they add +0.
#pragma once

#include "kernels/linear_kernel.h"

namespace chorus {

inline constexpr std::int64_t group_panel_rows = 32;
inline constexpr std::int64_t group_half_rows = 16;
inline constexpr std::int64_t line_bytes = 64;

constexpr std::int64_t half_code_bytes(LinearFormat::Kind kind) {
  return kind == LinearFormat::int8 ? 8 * line_bytes : 4 * line_bytes;
}
constexpr std::int64_t scales_offset(LinearFormat::Kind kind) {
  return 2 * half_code_bytes(kind);
}
constexpr std::int64_t record_bytes(LinearFormat::Kind kind) {
  return scales_offset(kind) + (has_minimum(kind) ? 2 : 1) * line_bytes;
}
constexpr std::int64_t segment_groups(const LinearShape& shape) {
  return round_up(segment_columns(shape), group_columns) / group_columns;
}
constexpr std::int64_t groups_of(const LinearShape& shape) {
  return segment_groups(shape) * shape.segments;
}
constexpr std::int64_t group_panel_bytes(LinearFormat::Kind kind, const LinearShape& shape) {
  return groups_of(shape) * record_bytes(kind);
}

// What the sum over k of the codes as they are stored is too large by, a unit of the sum of q_x, where W's codes are
// taken as unsigned (int8: with 128 added).
constexpr std::int32_t code_offset(LinearFormat::Kind kind) {
  return kind == LinearFormat::int8 ? 128 : kind == LinearFormat::int4 ? 8 : 0;
}

// Rows of x of one block, rounded: codes [group][rows][32], then by group and row the scale, the sum of the codes, and
// scale * sum. Blocks that go to tiles are filled up to whole tiles with rows of zeros.
inline constexpr std::int64_t group_block_rows = 32;
inline constexpr std::int64_t group_tile_rows_min = 5;  // fewer rows are faster without tiles

constexpr std::int64_t padded_block_rows(std::int64_t rows) {
  return rows < group_tile_rows_min ? rows : round_up(rows, tile_rows);
}
constexpr std::int64_t group_block_bytes(const LinearShape& shape) {
  return groups_of(shape) * group_block_rows * (group_columns + 3 * 4);
}

// Views of one block of rounded x.
template <typename Byte>
struct GroupRowsOf {
  template <typename T>
  using Like = std::conditional_t<std::is_const_v<Byte>, const T, T>;
  std::int64_t rows = 0;  // padded
  Like<std::int8_t>* codes = nullptr;
  Like<float>* scales = nullptr;
  Like<std::int32_t>* sums = nullptr;
  Like<float>* scaled_sums = nullptr;

  [[gnu::always_inline]] GroupRowsOf(const LinearShape& shape, std::int64_t count, Byte* block)
      : rows(padded_block_rows(count)) {
    const std::int64_t cells = groups_of(shape) * rows;
    codes = reinterpret_cast<Like<std::int8_t>*>(block);
    scales = reinterpret_cast<Like<float>*>(block + cells * group_columns);
    sums = reinterpret_cast<Like<std::int32_t>*>(scales + cells);
    scaled_sums = reinterpret_cast<Like<float>*>(sums + cells);
  }
};
using GroupRows = GroupRowsOf<const std::byte>;
using MutableGroupRows = GroupRowsOf<std::byte>;

// Inlined wherever they are used: each instruction set's file has its own.
[[gnu::always_inline]] inline std::int64_t block_rows_of(const LinearCall& call, std::int64_t block) {
  return call.block_begin(block + 1) - call.block_begin(block);
}
[[gnu::always_inline]] inline GroupRows group_rows(const LinearCall& call, std::int64_t block) {
  const LinearShape& shape = call.weight.shape;
  return {shape, block_rows_of(call, block), call.prepared + block * group_block_bytes(shape)};
}

[[gnu::always_inline]] inline std::size_t group_prepared_bytes(const LinearShape& shape, std::int64_t m) {
  return static_cast<std::size_t>(round_up(m, group_block_rows) / group_block_rows * group_block_bytes(shape));
}

// Quantise::group(const float* 32 values, int8* codes, float* scale, int32* sum) over all rows of the blocks.
template <typename Quantise>
void prepare_group_rows(const LinearCall& call, std::int64_t block_begin, std::int64_t block_end) {
  const LinearShape& shape = call.weight.shape;
  const std::int64_t columns = segment_columns(shape), groups = segment_groups(shape);
  for (std::int64_t block = block_begin; block < block_end; ++block) {
    const std::int64_t begin = call.block_begin(block), count = block_rows_of(call, block);
    const MutableGroupRows to(shape, count, call.preparing + block * group_block_bytes(shape));
    for (std::int64_t group = 0; group < groups_of(shape); ++group) {
      const std::int64_t first = group % groups * group_columns;
      const std::int64_t width = std::min<std::int64_t>(group_columns, columns - first);
      const float* from = call.x + begin * call.ldx + group / groups * columns + first;
      for (std::int64_t row = 0; row < to.rows; ++row, from += call.ldx) {
        const std::int64_t cell = group * to.rows + row;
        alignas(64) float copy[group_columns] = {};
        const bool whole = row < count && width == group_columns;
        if (row < count && !whole) {
          for (std::int64_t i = 0; i < width; ++i) copy[i] = from[i];
        }
        Quantise::group(whole ? from : copy, to.codes + cell * group_columns, to.scales + cell, to.sums + cell);
        to.scaled_sums[cell] = to.scales[cell] * static_cast<float>(to.sums[cell]);
      }
    }
  }
}

// Groups below this stand for zeros: the inverse of their scale would not be finite.
inline constexpr float smallest_group = 1e-30F;

}  // namespace chorus

// What linear.cc, the packing and the kernels of each instruction set share. Nobody outside kernels/linear* includes
// this.
//
// Layouts of a packed matrix. W is cut into panels of P rows, a panel into the segments of the reduction tree:
//   scalar        P = 1:    [row][column]
//   FMA, float32  P = 2 L:  [panel][segment][column][P]
//   FMA, bfloat16 P = 2 L:  [panel][segment][column][L] of 32-bit words: outputs j (low half) and j + L (high half), so
//   that
//                           a shift and a mask widen a loaded vector to two vectors of float32
//   AMX, bfloat16 P = 32:   [panel][segment][block of 32 columns][2 tiles of 16 outputs][16 column pairs][16
//   outputs][2],
//                           the last block of a segment filled up with zero columns
//   GPU, bfloat16 P = 8:    [row][segment][column], segments filled up to eights of columns, rows to eights; of a gate
//   and
//                           its up (LinearShape::gated_segments) rows lie in turn, filled up as the next matrix's
//                           columns
//   groups        P = 32:   linear_groups.h, on all CPUs
// L is the number of float32 lanes of a vector: 16 (AVX-512) or 8 (AVX2).
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "kernels/linear.h"

namespace chorus {

enum class LinearLayout : std::uint8_t { rows, lanes8, lanes16, tiles, matrix, groups };

// float32 has no tiles: it goes the AVX-512 way.
constexpr LinearLayout linear_layout(Isa isa, LinearFormat format) {
  if (format.in_groups()) return LinearLayout::groups;
  switch (isa) {
    case Isa::scalar:
      return LinearLayout::rows;
    case Isa::avx2_f32:
      return LinearLayout::lanes8;
    case Isa::avx512_bf16:
      return LinearLayout::lanes16;
    case Isa::amx_bf16:
      return format.dtype == DType::bfloat16 ? LinearLayout::tiles : LinearLayout::lanes16;
    case Isa::cuda_sm90:
      return LinearLayout::matrix;
  }
  return LinearLayout::rows;
}

inline constexpr std::int64_t tile_columns = 32;  // of a tile of bfloat16
inline constexpr std::int64_t tile_rows = 16;
inline constexpr std::int64_t tile_bytes = 1024;
inline constexpr std::int64_t matrix_unit = 8;  // rows and columns that a GPU's kernels take at a time

template <typename Integer>
constexpr Integer round_up(Integer value, std::type_identity_t<Integer> multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

constexpr std::int64_t panel_rows(LinearLayout layout) {
  switch (layout) {
    case LinearLayout::rows:
      return 1;
    case LinearLayout::lanes8:
      return 16;
    case LinearLayout::lanes16:
    case LinearLayout::tiles:
    case LinearLayout::groups:
      return 32;
    case LinearLayout::matrix:
      return matrix_unit;
  }
  return 1;
}

// Columns of one segment, as they are and as they are packed.
constexpr std::int64_t segment_columns(const LinearShape& shape) {
  return shape.columns / shape.segments;
}
constexpr std::int64_t packed_segment_columns(LinearLayout layout, const LinearShape& shape) {
  if (layout == LinearLayout::tiles) return round_up(segment_columns(shape), tile_columns);
  return layout == LinearLayout::matrix ? round_up(segment_columns(shape), matrix_unit) : segment_columns(shape);
}
// Rows as they are packed, and where row `row` is among them.
constexpr std::int64_t packed_rows(LinearLayout layout, const LinearShape& shape) {
  if (layout != LinearLayout::matrix) return shape.rows;
  if (shape.gated_segments == 0) return round_up(shape.rows, matrix_unit);
  const std::int64_t width = shape.rows / 2 / shape.gated_segments;
  return 2 * round_up(width, matrix_unit) * shape.gated_segments;
}
constexpr std::int64_t packed_row(LinearLayout layout, const LinearShape& shape, std::int64_t row) {
  if (layout != LinearLayout::matrix || shape.gated_segments == 0) return row;
  const std::int64_t half = shape.rows / 2, width = half / shape.gated_segments, at = row % half;
  return 2 * (at / width * round_up(width, matrix_unit) + at % width) + row / half;
}
// Of floats.
constexpr std::int64_t panel_bytes(LinearLayout layout, DType dtype, const LinearShape& shape) {
  return panel_rows(layout) * packed_segment_columns(layout, shape) * shape.segments *
         static_cast<std::int64_t>(bytes_of(dtype));
}
constexpr std::int64_t panel_count(LinearLayout layout, const LinearShape& shape) {
  return (packed_rows(layout, shape) + panel_rows(layout) - 1) / panel_rows(layout);
}

// One call of linear(), as its threads see it.
struct LinearCall {
  PackedLinear weight;
  LinearEpilogue epilogue;
  const float* x = nullptr;
  std::int64_t m = 0, ldx = 0;
  float* y = nullptr;
  std::int64_t ldy = 0;
  std::int64_t block_unit = 1;          // x is cut into units of this many rows (the last one may have fewer),
  std::int64_t blocks = 0;              // and the units into this many blocks, none with two units more than another
  const std::byte* prepared = nullptr;  // x as the kernel wants it, or null: the kernel reads x itself
  std::byte* preparing = nullptr;       // while prepare() makes it

  std::int64_t block_begin(std::int64_t block) const {
    return std::min(m, round_up(m, block_unit) / block_unit * block / blocks * block_unit);
  }
};

// One call of gated_input(): activation(gate) * up of [gate, up] = W x becomes the x that the product with `next`
// reads.
struct LinearGatedCall {
  LinearCall product;
  LinearShape next;
  void (*activate_mul)(const float* gate, const float* up, std::int64_t width, float* out) = nullptr;
  std::byte* out = nullptr;
};

// Blocks of x and panels of W that one thread multiplies.
struct LinearRectangle {
  std::int64_t block_begin = 0, block_end = 0, panel_begin = 0, panel_end = 0;
  bool empty() const { return block_begin == block_end || panel_begin == panel_end; }
};

// A kernel for one layout. It first may bring x into another form (every block once), then computes rectangles of y.
struct LinearKernel {
  std::int64_t block_rows;  // rows of x in a block, at most: whole units
  std::int64_t block_unit;  // rows
  std::size_t (*prepared_bytes)(const LinearShape& shape, std::int64_t m);
  // Memory that a thread needs to compute; 64-byte aligned.
  std::size_t (*workspace_bytes)(const LinearShape& shape, std::int64_t m);
  void (*prepare)(const LinearCall& call, std::int64_t block_begin, std::int64_t block_end);
  void (*compute)(const LinearCall& call, const LinearRectangle& rectangle, std::byte* workspace);
  // The same for a gated call, where gate and up and the segments of the next product are whole panels and steps. Null
  // where it would save nothing: products this much slower hide what passes through memory.
  std::size_t (*gated_workspace_bytes)(const LinearShape& shape, std::int64_t m) = nullptr;
  void (*compute_gated)(const LinearGatedCall& call, const LinearRectangle& rectangle, std::byte* workspace) = nullptr;
};

// Each in the file of its instruction set; call only where available_isas() has it.
const LinearKernel& linear_kernel_scalar();
const LinearKernel& linear_kernel_avx2();
const LinearKernel& linear_kernel_avx512();
const LinearKernel& linear_kernel_amx();

// For matrices in groups, all with the same bits; vnni: AVX-512 with VNNI, amx: VNNI and AMX-INT8.
const LinearKernel& group_kernel_scalar();
const LinearKernel& group_kernel_avx2();
const LinearKernel& group_kernel_vnni();
const LinearKernel& group_kernel_amx();

const LinearKernel& linear_kernel(Isa isa, LinearFormat format);

// linear() and gated_input() by a kernel of the caller's choice: a test of AMX runs where there is none.
void linear_with(const LinearKernel& kernel, ThreadPool& pool, Scratch& scratch, const PackedLinear& weight,
                 const LinearInput& x, float* y, std::int64_t ldy, const LinearEpilogue& epilogue);
LinearInput gated_input_with(const LinearKernel& kernel, Isa elementwise, ThreadPool& pool, Scratch& scratch,
                             const PackedLinear& gate_up, const float* bias, const LinearInput& x,
                             const PackedLinear& next, Activation activation = Activation::silu);

}  // namespace chorus

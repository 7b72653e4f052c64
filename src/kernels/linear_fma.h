// The linear kernel of the FMA instruction sets, written once over a vector type. Included only by linear_avx2.cc and
// linear_avx512.cc, whose `Vector` is in an anonymous namespace, so that each has its own instances.
//
// Each element of y has one accumulator a segment: acc = fma(x[k], w[k], acc), k ascending from +0; finished segments
// go through the tree of linear.h. Tiling changes which elements are in registers together, never this.
//
// Vector gives: what FloatVector of linear_vector.h has, block_rows, widen(p, &low, &high) for the packed bfloat16 of
// linear_kernel.h, and panels_at_once(rows).
#pragma once

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "kernels/linear_vector.h"

namespace chorus {

// x of a block as the kernel reads it: element (row, column) of a segment stands at
// segment_begin + column / 16 * chunk_stride + row * row_stride + column % 16.
struct FmaInput {
  const float* data = nullptr;
  std::int64_t segment_stride = 0, chunk_stride = 0, row_stride = 0;
};

inline constexpr std::int64_t chunk_columns = 16;

// Above this many rows x is copied into chunks of 16 columns x rows: rows a power of two apart would fall into the same
// cache sets.
inline constexpr std::int64_t rows_read_in_place = 4;

template <typename Vector, typename Weight, int rows, int panels>
class LinearTile {
  using Register = typename Vector::Register;
  static constexpr int vectors = 2 * panels;
  using Tree = SegmentTree<Vector, rows, vectors>;
  static constexpr std::int64_t panel_rows = 2 * Vector::lanes;
  // Far enough to cover a read from memory, near enough to stay in the first-level cache.
  static constexpr std::int64_t prefetch_bytes = 2048;

 public:
  // y[rows][panels * panel_rows] of one block of x and `panels` neighbouring panels of W.
  static void compute(const LinearCall& call, const FmaInput& x, std::int64_t row, std::int64_t panel) {
    const LinearShape& shape = call.weight.shape;
    const std::int64_t columns = segment_columns(shape);
    const std::int64_t panel_stride = columns * shape.segments * panel_rows;
    const Weight* w = reinterpret_cast<const Weight*>(call.weight.data) + panel * panel_stride;
    Register sum[rows][vectors];
    Tree tree;
    for (int segment = 0; segment < shape.segments; ++segment) {
      multiply_segment(x.data + segment * x.segment_stride, x, w + segment * columns * panel_rows, panel_stride,
                       columns, sum);
      tree.add(segment, shape.segments, sum);
    }
    store(call, row, panel, sum);
  }

 private:
  // One column: sum[i][j] += x[i] * w[j].
  [[gnu::always_inline]] static void multiply_column(const float* x, std::int64_t row_stride, const Weight* w,
                                                     std::int64_t panel_stride, Register (&sum)[rows][vectors]) {
    Register weight[vectors];
#pragma GCC unroll 4
    for (int p = 0; p < panels; ++p) {
      const Weight* line = w + p * panel_stride;
      _mm_prefetch(reinterpret_cast<const char*>(line) + prefetch_bytes, _MM_HINT_T0);
      if constexpr (std::is_same_v<Weight, float>) {
        weight[2 * p] = Vector::load(line);
        weight[2 * p + 1] = Vector::load(line + Vector::lanes);
      } else {
        Vector::widen(line, &weight[2 * p], &weight[2 * p + 1]);
      }
    }
#pragma GCC unroll 16
    for (int i = 0; i < rows; ++i) {
      const Register value = Vector::broadcast(x[i * row_stride]);
#pragma GCC unroll 8
      for (int j = 0; j < vectors; ++j) sum[i][j] = Vector::fma(value, weight[j], sum[i][j]);
    }
  }

  static void multiply_segment(const float* x, const FmaInput& input, const Weight* w, std::int64_t panel_stride,
                               std::int64_t columns, Register (&out)[rows][vectors]) {
    // A copy whose address nobody sees, so that it stays in registers.
    Register sum[rows][vectors];
    Tree::for_each([&](int i, int j) { sum[i][j] = Vector::zero(); });
    // Prepared x: a constant stride makes every x an immediate offset.
    const std::int64_t row_stride = rows > rows_read_in_place ? chunk_columns : input.row_stride;
    for (std::int64_t begin = 0; begin < columns; begin += chunk_columns, x += input.chunk_stride) {
      const std::int64_t count = std::min(chunk_columns, columns - begin);
#pragma GCC unroll 2
      for (std::int64_t k = 0; k < count; ++k, w += panel_rows)
        multiply_column(x + k, row_stride, w, panel_stride, sum);
    }
    Tree::for_each([&](int i, int j) { out[i][j] = sum[i][j]; });
  }

  static void store(const LinearCall& call, std::int64_t row, std::int64_t panel,
                    const Register (&sum)[rows][vectors]) {
    for (int i = 0; i < rows; ++i) {
      for (int j = 0; j < vectors; ++j) {
        const std::int64_t n = panel * panel_rows + j * Vector::lanes;
        if (n >= call.weight.shape.rows) break;
        store_outputs<Vector>(call, n, call.y + (row + i) * call.ldy + n, sum[i][j]);
      }
    }
  }
};

template <typename Vector>
struct LinearFma {
  static std::int64_t segment_chunks(const LinearShape& shape) {
    return round_up(segment_columns(shape), chunk_columns) / chunk_columns;
  }
  static std::int64_t prepared_columns(const LinearShape& shape) {
    return segment_chunks(shape) * chunk_columns * shape.segments;
  }

  static std::size_t prepared_bytes(const LinearShape& shape, std::int64_t m) {
    if (m <= rows_read_in_place) return 0;
    return static_cast<std::size_t>(m * prepared_columns(shape)) * sizeof(float);
  }

  // Block layout: [segment][chunk][row][16]. What lies beyond a segment's last column is never read.
  static void prepare(const LinearCall& call, std::int64_t block_begin, std::int64_t block_end) {
    const LinearShape& shape = call.weight.shape;
    const std::int64_t columns = segment_columns(shape);
    for (std::int64_t block = block_begin; block < block_end; ++block) {
      const std::int64_t begin = call.block_begin(block), end = call.block_begin(block + 1);
      float* out = reinterpret_cast<float*>(call.preparing) + begin * prepared_columns(shape);
      for (int segment = 0; segment < shape.segments; ++segment) {
        for (std::int64_t k = 0; k < columns; k += chunk_columns) {
          const std::int64_t count = std::min(chunk_columns, columns - k);
          for (std::int64_t i = begin; i < end; ++i, out += chunk_columns) {
            const float* from = call.x + i * call.ldx + segment * columns + k;
            if (count == chunk_columns) {
              std::memcpy(out, from, chunk_columns * sizeof(float));
            } else {
              std::memcpy(out, from, static_cast<std::size_t>(count) * sizeof(float));
            }
          }
        }
      }
    }
  }

  static FmaInput input_of(const LinearCall& call, std::int64_t block) {
    const std::int64_t begin = call.block_begin(block), rows = call.block_begin(block + 1) - begin;
    const LinearShape& shape = call.weight.shape;
    if (call.prepared == nullptr) return {call.x + begin * call.ldx, segment_columns(shape), chunk_columns, call.ldx};
    const float* data = reinterpret_cast<const float*>(call.prepared) + begin * prepared_columns(shape);
    return {data, segment_chunks(shape) * rows * chunk_columns, rows * chunk_columns, chunk_columns};
  }

  // All of one block's y for panels [panel, panel_end): several panels at a time while they fit in registers.
  template <typename Weight, int rows>
  static void compute_block(const LinearCall& call, std::int64_t block, std::int64_t panel, std::int64_t panel_end) {
    constexpr int at_once = Vector::panels_at_once(rows);
    const FmaInput x = input_of(call, block);
    const std::int64_t row = call.block_begin(block);
    for (; panel + at_once <= panel_end; panel += at_once) {
      LinearTile<Vector, Weight, rows, at_once>::compute(call, x, row, panel);
    }
    for (; panel < panel_end; ++panel) LinearTile<Vector, Weight, rows, 1>::compute(call, x, row, panel);
  }

  template <typename Weight, int rows = Vector::block_rows>
  static void compute_rows(const LinearCall& call, std::int64_t block, std::int64_t panel, std::int64_t panel_end) {
    if (call.block_begin(block + 1) - call.block_begin(block) == rows) {
      compute_block<Weight, rows>(call, block, panel, panel_end);
    } else if constexpr (rows > 1) {
      compute_rows<Weight, rows - 1>(call, block, panel, panel_end);
    }
  }

  // A group of blocks whose x stays in the second-level cache meets each panel in turn, so that a panel is read from
  // memory once a group and x once a call.
  template <typename Weight>
  static void compute_groups(const LinearCall& call, const LinearRectangle& all) {
    constexpr std::int64_t x_bytes_max = 1 << 19, blocks_min = 4;
    if (all.block_end - all.block_begin == 1) {
      return compute_rows<Weight>(call, all.block_begin, all.panel_begin, all.panel_end);
    }
    const std::int64_t block_bytes =
        Vector::block_rows * call.weight.shape.columns * static_cast<std::int64_t>(sizeof(float));
    const std::int64_t group = std::max(blocks_min, x_bytes_max / block_bytes);
    for (std::int64_t begin = all.block_begin; begin < all.block_end; begin += group) {
      const std::int64_t end = std::min(begin + group, all.block_end);
      for (std::int64_t panel = all.panel_begin; panel < all.panel_end; ++panel) {
        for (std::int64_t block = begin; block < end; ++block) compute_rows<Weight>(call, block, panel, panel + 1);
      }
    }
  }

  static std::size_t workspace_bytes(const LinearShape&, std::int64_t) { return 0; }

  static void compute(const LinearCall& call, const LinearRectangle& rectangle, std::byte*) {
    if (call.weight.format.dtype == DType::float32) {
      compute_groups<float>(call, rectangle);
    } else {
      compute_groups<Bfloat16>(call, rectangle);
    }
  }
};

template <typename Vector>
constexpr LinearKernel linear_kernel_fma = {Vector::block_rows,
                                            1,
                                            LinearFma<Vector>::prepared_bytes,
                                            LinearFma<Vector>::workspace_bytes,
                                            LinearFma<Vector>::prepare,
                                            LinearFma<Vector>::compute};

}  // namespace chorus

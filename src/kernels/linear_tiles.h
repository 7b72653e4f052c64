// The linear kernel of AMX, written over a policy for the tile registers: linear_amx.cc has the instructions, the test
// an emulation, since the packing, the loops and the tails are the same.
//
// x is rounded to bfloat16 (nearest, ties to even) and cut into tiles of 16 rows x 32 columns, missing rows and columns
// zero. All tiles always have their full shape, so a row's sums do not depend on how many rows are beside it. A
// segment's sum is one accumulator tile, 32 columns a step in ascending order; inside a step the order is the
// processor's (Intel SDM, TDPBF16PS).
//
// Tiles gives: configure(), release(), zero<t>(), load<t>(bytes), dot<c, a, b>() (c += a b), store<t>(floats, stride in
// floats), and prefetch(bytes). Tile t is 16 rows of 64 bytes, in memory without gaps but for store().
#pragma once

#include <algorithm>

#include "kernels/linear_kernel.h"

namespace chorus {

template <typename Tiles>
struct LinearTiles {
  static constexpr std::int64_t block_rows = 2 * tile_rows;
  static constexpr std::int64_t panel_width = 2 * tile_rows;
  static constexpr std::int64_t prefetch_bytes = 8 * tile_bytes;

  static std::int64_t segment_steps(const LinearShape& shape) {
    return packed_segment_columns(LinearLayout::tiles, shape) / tile_columns;
  }
  static std::int64_t row_tiles(const LinearCall& call, std::int64_t block) {
    return call.block_begin(block + 1) - call.block_begin(block) > tile_rows ? 2 : 1;
  }
  static std::int64_t block_bytes(const LinearShape& shape) {
    return 2 * segment_steps(shape) * shape.segments * tile_bytes;
  }

  static std::size_t prepared_bytes(const LinearShape& shape, std::int64_t m) {
    return static_cast<std::size_t>(round_up(m, block_rows) / block_rows * block_bytes(shape));
  }

  // Block layout: [segment][step][row tile][16 rows][32 columns].
  static void prepare(const LinearCall& call, std::int64_t block_begin, std::int64_t block_end) {
    const LinearShape& shape = call.weight.shape;
    const std::int64_t columns = segment_columns(shape);
    for (std::int64_t block = block_begin; block < block_end; ++block) {
      Bfloat16* out = reinterpret_cast<Bfloat16*>(call.prepared + block * block_bytes(shape));
      const std::int64_t row_begin = call.block_begin(block), row_end = call.block_begin(block + 1);
      const std::int64_t padded_end = row_begin + row_tiles(call, block) * tile_rows;
      for (int segment = 0; segment < shape.segments; ++segment) {
        for (std::int64_t k = 0; k < columns; k += tile_columns) {
          const std::int64_t count = std::min(tile_columns, columns - k);
          for (std::int64_t row = row_begin; row < padded_end; ++row, out += tile_columns) {
            const float* from = call.x + row * call.ldx + segment * columns + k;
            round_row(from, row < row_end ? count : 0, out);
          }
        }
      }
    }
  }

  static void compute(const LinearCall& call, std::int64_t block_begin, std::int64_t block_end,
                      std::int64_t panel_begin, std::int64_t panel_end) {
    // A group of blocks whose x stays in the second-level cache meets each panel in turn.
    constexpr std::int64_t x_bytes_max = 1024 * 1024, blocks_min = 4;
    const std::int64_t group =
        std::max(blocks_min, x_bytes_max / std::max<std::int64_t>(1, block_bytes(call.weight.shape)));
    Tiles::configure();
    for (std::int64_t begin = block_begin; begin < block_end; begin += group) {
      for (std::int64_t panel = panel_begin; panel < panel_end; ++panel) {
        for (std::int64_t block = begin; block < std::min(begin + group, block_end); ++block) {
          if (row_tiles(call, block) == 1) {
            compute_block<1>(call, block, panel);
          } else {
            compute_block<2>(call, block, panel);
          }
        }
      }
    }
    Tiles::release();
  }

 private:
  using Sums = float[2 * tile_rows][panel_width];

  static void round_row(const float* from, std::int64_t count, Bfloat16* out) {
    for (std::int64_t i = 0; i < count; ++i) out[i] = to_bfloat16(from[i]);
    for (std::int64_t i = count; i < tile_columns; ++i) out[i] = 0;
  }

  template <int row_tile_count>
  static void compute_block(const LinearCall& call, std::int64_t block, std::int64_t panel) {
    const LinearShape& shape = call.weight.shape;
    const std::int64_t steps = segment_steps(shape);
    const std::byte* x = call.prepared + block * block_bytes(shape);
    const std::byte* w = call.weight.data + panel * panel_bytes(LinearLayout::tiles, DType::bfloat16, shape);
    constexpr int rows = row_tile_count * static_cast<int>(tile_rows);
    alignas(64) Sums sums;
    alignas(64) Sums waiting[3];  // the finished left siblings of the tree: a binary counter
    for (int segment = 0; segment < shape.segments; ++segment) {
      multiply_segment<row_tile_count>(x, w, steps, sums);
      x += steps * row_tile_count * tile_bytes;
      w += steps * 2 * tile_bytes;
      int level = 0;
      for (; (segment >> level & 1) != 0; ++level) add_left<rows>(waiting[level], sums);
      if (segment + 1 < shape.segments) std::copy_n(&sums[0][0], rows * panel_width, &waiting[level][0][0]);
    }
    store(call, block, panel, sums);
  }

  // Tiles 0-3: sums [row tile][output tile]; 4-5: x; 6-7: W.
  template <int row_tile_count>
  static void multiply_segment(const std::byte* x, const std::byte* w, std::int64_t steps, Sums& sums) {
    Tiles::template zero<0>();
    Tiles::template zero<1>();
    if constexpr (row_tile_count == 2) {
      Tiles::template zero<2>();
      Tiles::template zero<3>();
    }
    for (std::int64_t step = 0; step < steps; ++step, x += row_tile_count * tile_bytes, w += 2 * tile_bytes) {
      Tiles::prefetch(w + prefetch_bytes);
      Tiles::template load<4>(x);
      Tiles::template load<6>(w);
      Tiles::template load<7>(w + tile_bytes);
      Tiles::template dot<0, 4, 6>();
      Tiles::template dot<1, 4, 7>();
      if constexpr (row_tile_count == 2) {
        Tiles::template load<5>(x + tile_bytes);
        Tiles::template dot<2, 5, 6>();
        Tiles::template dot<3, 5, 7>();
      }
    }
    Tiles::template store<0>(&sums[0][0], panel_width);
    Tiles::template store<1>(&sums[0][tile_rows], panel_width);
    if constexpr (row_tile_count == 2) {
      Tiles::template store<2>(&sums[tile_rows][0], panel_width);
      Tiles::template store<3>(&sums[tile_rows][tile_rows], panel_width);
    }
  }

  template <int rows>
  static void add_left(const Sums& left, Sums& sums) {
    for (int i = 0; i < rows; ++i) {
      for (std::int64_t j = 0; j < panel_width; ++j) sums[i][j] = left[i][j] + sums[i][j];
    }
  }

  static void store(const LinearCall& call, std::int64_t block, std::int64_t panel, const Sums& sums) {
    const std::int64_t row_begin = call.block_begin(block), count = call.block_begin(block + 1) - row_begin;
    const std::int64_t n = panel * panel_width, width = std::min(panel_width, call.weight.shape.rows - n);
    const float* bias = call.epilogue.bias;
    for (std::int64_t i = 0; i < count; ++i) {
      float* y = call.y + (row_begin + i) * call.ldy + n;
      for (std::int64_t j = 0; j < width; ++j) {
        const float sum = bias != nullptr ? sums[i][j] + bias[n + j] : sums[i][j];
        y[j] = call.epilogue.accumulate ? y[j] + sum : sum;
      }
    }
  }
};

}  // namespace chorus

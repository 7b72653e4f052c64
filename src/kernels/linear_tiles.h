// The linear kernel of AMX, written over a policy for the tile registers: linear_amx.cc has the instructions, the test
// an emulation, since the packing, the loops and the tails are the same.
//
// x is rounded to bfloat16 (nearest, ties to even) and cut into tiles of 16 rows x 32 columns, missing rows and columns
// zero. All tiles always have their full shape, so a row's sums do not depend on how many rows are beside it. A
// segment's sum is one accumulator tile, 32 columns a step in ascending order; inside a step the order is the
// processor's (Intel SDM, TDPBF16PS). An accumulator that is stored and loaded again goes on with the same bits.
//
// Tiles gives: configure(), release(), zero<t>(), load<t>(bytes), dot<c, a, b>() (c += a b), load_sums<t>(floats,
// stride in floats) and store_sums<t>(the same) of a tile of float32, prefetch(bytes) and prefetch_to_write(floats) of
// one cache line. Tile t is 16 rows of 64 bytes, in memory without gaps but for sums.
#pragma once

#include <algorithm>
#include <bit>
#include <utility>

#include "kernels/linear_kernel.h"

namespace chorus {

template <typename Tiles>
struct LinearTiles {
  static constexpr std::int64_t block_rows = 2 * tile_rows;
  static constexpr std::int64_t panel_width = 2 * tile_rows;
  // Blocks of a group at most: their sums of one panel (4 KiB a block) stay in the second-level cache.
  static constexpr std::int64_t group_blocks_max = 16;
  // A segment is multiplied in chunks of at most so many steps: W of a chunk (2 KiB a step) and x of one block stay in
  // the first-level cache while the blocks of a group pass.
  static constexpr std::int64_t chunk_steps_max = 14;

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
      Bfloat16* out = reinterpret_cast<Bfloat16*>(call.preparing + block * block_bytes(shape));
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

  // Blocks whose x stays in the second-level cache and meets each panel in turn.
  static std::int64_t group_blocks(const LinearShape& shape) {
    constexpr std::int64_t x_bytes_max = 1 << 20, blocks_min = 4;
    const std::int64_t fitting = x_bytes_max / std::max<std::int64_t>(1, block_bytes(shape));
    return std::clamp(fitting, blocks_min, group_blocks_max);
  }

  // Sums of `panels` panels for the blocks of a group, and those of the tree that wait.
  static std::size_t sums_bytes(const LinearShape& shape, std::int64_t m, std::int64_t panels) {
    const std::int64_t blocks = std::min(group_blocks(shape), round_up(m, block_rows) / block_rows);
    const auto waiting = static_cast<std::int64_t>(std::bit_width(static_cast<unsigned>(shape.segments))) - 1;
    return static_cast<std::size_t>((panels + waiting) * blocks) * sizeof(Sums);
  }
  static std::size_t workspace_bytes(const LinearShape& shape, std::int64_t m) { return sums_bytes(shape, m, 2); }
  static std::size_t gated_workspace_bytes(const LinearShape& shape, std::int64_t m) { return sums_bytes(shape, m, 4); }

  static void compute(const LinearCall& call, const LinearRectangle& rectangle, std::byte* workspace) {
    for_each_group(call, rectangle, [&](Group group) {
      Sums *sums = reinterpret_cast<Sums*>(workspace), *stored = sums + group.blocks;
      Sums* waiting = stored + group.blocks;
      Storing storing;
      for (std::int64_t panel = rectangle.panel_begin; panel < rectangle.panel_end; ++panel) {
        multiply_panel(call, group, panel, sums, waiting, storing);
        storing.finish();
        storing = Storing(call, group, panel, sums);
        std::swap(sums, stored);
      }
      storing.finish();
    });
  }

  // Panels of the rectangle are those of the gate; up's follow them all.
  static void compute_gated(const LinearGatedCall& call, const LinearRectangle& rectangle, std::byte* workspace) {
    const std::int64_t up = call.product.weight.shape.rows / 2 / panel_width;
    for_each_group(call.product, rectangle, [&](Group group) {
      Sums *sums = reinterpret_cast<Sums*>(workspace), *gated = sums + 2 * group.blocks;
      Sums* waiting = gated + 2 * group.blocks;
      Gating gating;
      for (std::int64_t panel = rectangle.panel_begin; panel < rectangle.panel_end; ++panel) {
        multiply_panel(call.product, group, panel, sums, waiting, gating);
        multiply_panel(call.product, group, panel + up, sums + group.blocks, waiting, gating);
        gating.finish();
        gating = Gating(call, group, panel, sums);
        std::swap(sums, gated);
      }
      gating.finish();
    });
  }

 private:
  using Sums = float[2 * tile_rows][panel_width];

  struct Group {
    std::int64_t first = 0, blocks = 0;
  };
  // Columns of a product: some steps of one segment.
  struct Chunk {
    std::int64_t first_step = 0, steps = 0;  // counted over the segments
    bool begins_segment = false;
  };

  template <typename F>
  static void for_each_group(const LinearCall& call, const LinearRectangle& rectangle, F f) {
    const std::int64_t blocks = group_blocks(call.weight.shape);
    Tiles::configure();
    for (std::int64_t begin = rectangle.block_begin; begin < rectangle.block_end; begin += blocks) {
      f(Group{begin, std::min(blocks, rectangle.block_end - begin)});
    }
    Tiles::release();
  }

  // What becomes of the rows of finished sums, one at a time, between the steps of the next product, whose tile
  // instructions leave the vector units idle.
  template <typename Derived>
  class RowWork {
   public:
    RowWork() = default;
    RowWork(const LinearCall& call, Group group, std::int64_t panel)
        : call_(&call), panel_(panel), first_(group.first), blocks_(group.blocks) {
      const std::int64_t steps = segment_steps(call.weight.shape) * call.weight.shape.segments;
      rows_at_once_ = (block_rows + steps - 1) / std::max<std::int64_t>(1, steps);
      begin_block();
    }

    // As many rows as make all of them within the steps of one panel.
    void step() {
      for (std::int64_t i = 0; i < rows_at_once_ && group_block_ < blocks_; ++i) do_row();
    }
    void finish() {
      while (group_block_ < blocks_) do_row();
    }

   protected:
    const LinearCall* call_ = nullptr;
    std::int64_t panel_ = 0;
    // The row that is next: its block in the group and in x, that one's first row and tiles, its place in the block.
    std::int64_t group_block_ = 0, block_ = 0, block_begin_ = 0, row_tiles_ = 0, row_ = 0;

   private:
    void do_row() {
      static_cast<Derived*>(this)->do_next_row();
      if (++row_ < row_tiles_ * tile_rows) return;
      row_ = 0;
      ++group_block_;
      begin_block();
    }
    void begin_block() {
      if (group_block_ == blocks_) return;
      block_ = first_ + group_block_;
      block_begin_ = call_->block_begin(block_);
      row_tiles_ = row_tiles(*call_, block_);
    }

    std::int64_t first_ = 0, blocks_ = 0, rows_at_once_ = 0;
  };

  // y = sums.
  class Storing : public RowWork<Storing> {
   public:
    Storing() = default;
    Storing(const LinearCall& call, Group group, std::int64_t panel, const Sums* sums)
        : RowWork<Storing>(call, group, panel), sums_(sums) {}

    void do_next_row() {
      const LinearCall& call = *this->call_;
      const std::int64_t row = this->block_begin_ + this->row_;
      if (row >= call.m) return;
      const std::int64_t n = this->panel_ * panel_width, width = std::min(panel_width, call.weight.shape.rows - n);
      const float* bias = call.epilogue.bias != nullptr ? call.epilogue.bias + n : nullptr;
      float* y = call.y + row * call.ldy + n;
      Tiles::prefetch_to_write(y + rows_ahead * call.ldy);
      Tiles::prefetch_to_write(y + rows_ahead * call.ldy + tile_rows);
      store(sums_[this->group_block_][this->row_], bias, width, y);
    }

   private:
    static constexpr std::int64_t rows_ahead = 4;  // covers a read from memory

    void store(const float* sums, const float* bias, std::int64_t width, float* y) const {
      const bool accumulate = this->call_->epilogue.accumulate;
      for (std::int64_t j = 0; j < width; ++j) {
        const float sum = bias != nullptr ? sums[j] + bias[j] : sums[j];
        y[j] = accumulate ? y[j] + sum : sum;
      }
    }

    const Sums* sums_ = nullptr;
  };

  // silu(gate) * up becomes a step of the next product's x. Rows that only fill up a tile go along, so that it is
  // whole.
  class Gating : public RowWork<Gating> {
   public:
    Gating() = default;
    Gating(const LinearGatedCall& call, Group group, std::int64_t panel, Sums* sums)
        : RowWork<Gating>(call.product, group, panel), gated_(&call), gate_(sums), up_(sums + group.blocks) {}

    void do_next_row() {
      float *gate = gate_[this->group_block_][this->row_], *up = up_[this->group_block_][this->row_];
      if (const float* bias = this->call_->epilogue.bias; bias != nullptr) {
        bias += this->panel_ * panel_width;
        const float* up_bias = bias + this->call_->weight.shape.rows / 2;
        for (std::int64_t j = 0; j < panel_width; ++j) {
          gate[j] += bias[j];
          up[j] += up_bias[j];
        }
      }
      gated_->activate_mul(gate, up, panel_width, gate);
      const std::int64_t tile = this->panel_ * this->row_tiles_ + this->row_ / tile_rows;
      std::byte* out = gated_->out + this->block_ * block_bytes(gated_->next) + tile * tile_bytes;
      round_row(gate, tile_columns, reinterpret_cast<Bfloat16*>(out) + this->row_ % tile_rows * tile_columns);
    }

   private:
    const LinearGatedCall* gated_ = nullptr;
    Sums *gate_ = nullptr, *up_ = nullptr;
  };

  static void round_row(const float* from, std::int64_t count, Bfloat16* out) {
    for (std::int64_t i = 0; i < count; ++i) out[i] = to_bfloat16(from[i]);
    for (std::int64_t i = count; i < tile_columns; ++i) out[i] = 0;
  }

  // sums[i] of block i of the group. Sums of segments that wait for their right sibling stand on a stack, one level for
  // each one-bit of the number of finished segments: `sums`, then `waiting`.
  template <typename Work>
  static void multiply_panel(const LinearCall& call, Group group, std::int64_t panel, Sums* sums, Sums* waiting,
                             Work& work) {
    const LinearShape& shape = call.weight.shape;
    const std::int64_t steps = segment_steps(shape);
    const std::int64_t chunks = std::max<std::int64_t>(1, round_up(steps, chunk_steps_max) / chunk_steps_max);
    const std::byte* w = call.weight.data + panel * panel_bytes(LinearLayout::tiles, DType::bfloat16, shape);
    const auto level = [&](int index) { return index == 0 ? sums : waiting + (index - 1) * group.blocks; };
    for (int segment = 0; segment < shape.segments; ++segment) {
      int top = std::popcount(static_cast<unsigned>(segment));
      for (std::int64_t i = 0; i < chunks; ++i) {
        const std::int64_t begin = steps * i / chunks, end = steps * (i + 1) / chunks;
        multiply_chunk(call, group, {segment * steps + begin, end - begin, i == 0}, w, level(top), work);
      }
      for (int bits = segment; (bits & 1) != 0; bits >>= 1, --top) {
        for (std::int64_t i = 0; i < group.blocks; ++i) add_right(level(top)[i], level(top - 1)[i]);
      }
    }
  }

  // The W that comes next is asked for meanwhile, a few lines at each step of each block.
  template <typename Work>
  static void multiply_chunk(const LinearCall& call, Group group, const Chunk& chunk, const std::byte* w, Sums* sums,
                             Work& work) {
    constexpr std::int64_t step_lines = 2 * tile_bytes / 64;
    w += chunk.first_step * 2 * tile_bytes;
    const std::int64_t lines = (step_lines + group.blocks - 1) / group.blocks;
    const std::byte* next = w + chunk.steps * 2 * tile_bytes;
    for (std::int64_t i = 0; i < group.blocks; ++i, next += chunk.steps * lines * 64) {
      const std::byte* x = call.prepared + (group.first + i) * block_bytes(call.weight.shape);
      if (row_tiles(call, group.first + i) == 1) {
        multiply_block<1>(x, w, chunk, next, lines, sums[i], work);
      } else {
        multiply_block<2>(x, w, chunk, next, lines, sums[i], work);
      }
    }
  }

  // Tiles 0-3: sums [row tile][output tile]; 4-5: x; 6-7: W.
  template <int row_tile_count, typename Work>
  static void multiply_block(const std::byte* x, const std::byte* w, const Chunk& chunk, const std::byte* next,
                             std::int64_t lines, Sums& sums, Work& work) {
    begin_sums<row_tile_count>(chunk.begins_segment, sums);
    x += chunk.first_step * row_tile_count * tile_bytes;
    for (std::int64_t step = 0; step < chunk.steps; ++step, x += row_tile_count * tile_bytes, w += 2 * tile_bytes) {
      for (std::int64_t line = 0; line < lines; ++line, next += 64) Tiles::prefetch(next);
      Tiles::template load<4>(x);
      Tiles::template load<6>(w);
      Tiles::template dot<0, 4, 6>();
      Tiles::template load<7>(w + tile_bytes);
      Tiles::template dot<1, 4, 7>();
      if constexpr (row_tile_count == 2) {
        Tiles::template load<5>(x + tile_bytes);
        Tiles::template dot<2, 5, 6>();
        Tiles::template dot<3, 5, 7>();
      }
      work.step();
    }
    Tiles::template store_sums<0>(&sums[0][0], panel_width);
    Tiles::template store_sums<1>(&sums[0][tile_rows], panel_width);
    if constexpr (row_tile_count == 2) {
      Tiles::template store_sums<2>(&sums[tile_rows][0], panel_width);
      Tiles::template store_sums<3>(&sums[tile_rows][tile_rows], panel_width);
    }
  }

  template <int row_tile_count>
  static void begin_sums(bool zero, const Sums& sums) {
    if (zero) {
      Tiles::template zero<0>();
      Tiles::template zero<1>();
      if constexpr (row_tile_count == 2) {
        Tiles::template zero<2>();
        Tiles::template zero<3>();
      }
      return;
    }
    Tiles::template load_sums<0>(&sums[0][0], panel_width);
    Tiles::template load_sums<1>(&sums[0][tile_rows], panel_width);
    if constexpr (row_tile_count == 2) {
      Tiles::template load_sums<2>(&sums[tile_rows][0], panel_width);
      Tiles::template load_sums<3>(&sums[tile_rows][tile_rows], panel_width);
    }
  }

  static void add_right(const Sums& right, Sums& left) {
    for (std::int64_t i = 0; i < block_rows; ++i) {
      for (std::int64_t j = 0; j < panel_width; ++j) left[i][j] += right[i][j];
    }
  }
};

template <typename Tiles>
constexpr LinearKernel linear_kernel_tiles = {LinearTiles<Tiles>::block_rows,
                                              tile_rows,
                                              LinearTiles<Tiles>::prepared_bytes,
                                              LinearTiles<Tiles>::workspace_bytes,
                                              LinearTiles<Tiles>::prepare,
                                              LinearTiles<Tiles>::compute,
                                              LinearTiles<Tiles>::gated_workspace_bytes,
                                              LinearTiles<Tiles>::compute_gated};

}  // namespace chorus

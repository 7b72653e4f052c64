// Device code of linear_cuda.h, for nvcc and for the emulation. Two kernels: linear_stream for few rows of x, which is
// bound by the reading of W, and linear_tiled for many. Private to linear_cuda*.
#pragma once

#include "kernels/linear_cuda.h"
#include "simt/simt.h"

namespace chorus::cuda::inline SIMT_MEANING {

using simt::Bfloat16;
using simt::Shared;

inline constexpr int step_columns = 16;  // of one mma

// 16-byte chunks of a row in shared memory, permuted so that eight rows of one chunk lie in different banks.
template <int columns>
SIMT_DEVICE int swizzled(int row, int chunk) {
  return row * columns + ((chunk ^ (row & 7)) << 3);
}

// Where the columns of a product are: in tiles of tile_columns, none of which crosses a segment's end.
template <int tile_columns>
struct ColumnTiles {
  int of_segment, count, segment_columns;

  SIMT_DEVICE explicit ColumnTiles(const CudaLinear& call)
      : of_segment((call.columns / call.segments + tile_columns - 1) / tile_columns),
        count(of_segment * call.segments),
        segment_columns(call.columns / call.segments) {}
  SIMT_DEVICE int segment(int tile) const { return tile / of_segment; }
  SIMT_DEVICE int first_in_segment(int tile) const { return tile % of_segment * tile_columns; }
  SIMT_DEVICE bool ends_segment(int tile) const { return (tile + 1) % of_segment == 0; }
};

// The balanced tree over segments that come one after another: a binary counter of sums that wait for their partner, in
// local memory (the index of the level keeps them out of the registers, which are full of sums).
template <int fragments>
struct SegmentTree {
  float waiting[3][fragments][4];

  // Takes the sums of `segment`; leaves the sum of all in `sums` after the last one, else zeros.
  SIMT_DEVICE void add(int segment, bool last, float (&sums)[fragments][4]) {
    int level = 0;
    for (; (segment >> level) & 1; ++level) {
      SIMT_UNROLL
      for (int i = 0; i < 4 * fragments; ++i) sums[i / 4][i % 4] = waiting[level][i / 4][i % 4] + sums[i / 4][i % 4];
    }
    if (last) return;
    SIMT_UNROLL
    for (int i = 0; i < 4 * fragments; ++i) {
      waiting[level][i / 4][i % 4] = sums[i / 4][i % 4];
      sums[i / 4][i % 4] = 0;
    }
  }
};

struct alignas(8) FloatPair {
  float first, second;
};

// The sums of outputs `column` (even) and `column` + 1 of one row.
SIMT_DEVICE void store_pair(const CudaLinear& call, int row, int column, float first, float second) {
  if (call.bias != nullptr) {
    first += call.bias[column];
    second += call.bias[column + 1];
  }
  const std::int64_t at = row * call.ldy + column;
  switch (call.output) {
    case CudaLinearOutput::store:
      *reinterpret_cast<FloatPair*>(static_cast<float*>(call.y) + at) = {first, second};
      break;
    case CudaLinearOutput::accumulate: {
      auto* y = reinterpret_cast<FloatPair*>(static_cast<float*>(call.y) + at);
      const FloatPair before = *y;
      *y = {before.first + first, before.second + second};
      break;
    }
    case CudaLinearOutput::round:
      *reinterpret_cast<std::uint32_t*>(static_cast<Bfloat16*>(call.y) + at) = simt::pack_bfloat16(first, second);
      break;
    case CudaLinearOutput::gate:
      static_cast<Bfloat16*>(call.y)[row * call.ldy + column / 2] =
          simt::to_bfloat16(first / (1.0F + simt::exponential(0.0F - first)) * second);
      break;
    case CudaLinearOutput::gelu_gate: {
      const float inner = simt::multiply_add(0.044715F, first * first * first, first);
      const float gelu = first / (1.0F + simt::exponential(-1.5957691216057308F * inner));
      static_cast<Bfloat16*>(call.y)[row * call.ldy + column / 2] = simt::to_bfloat16(gelu * second);
      break;
    }
  }
}

// Stores the fragment of 16 x 8 outputs whose first is (row, column).
SIMT_DEVICE void store_fragment(const CudaLinear& call, int row, int column, const float* sums) {
  const int at_row = row + simt::lane() / 4, at_column = column + simt::lane() % 4 * 2;
  if (column >= call.rows) return;
  if (at_row < call.m) store_pair(call, at_row, at_column, sums[0], sums[1]);
  if (at_row + 8 < call.m) store_pair(call, at_row + 8, at_column, sums[2], sums[3]);
}

// Copies of one thread into a tile of rows: chunk thread % chunks of every `step`-th row from thread / chunks on.
template <int tile_columns, int threads>
struct RowCopies {
  static constexpr int chunks = tile_columns / 8;
  static constexpr int step = threads / chunks;
  static_assert(threads % chunks == 0 && step % 8 == 0);
  const Bfloat16* from;  // of the thread's first row
  std::int64_t stride;
  int row, chunk, rows;  // rows: that exist, of the tile

  SIMT_DEVICE RowCopies(const Bfloat16* data, std::int64_t ld, int first_row, int row_count)
      : stride(ld), row(simt::thread() / chunks), chunk(simt::thread() % chunks), rows(row_count) {
    from = data + (first_row + row) * ld + static_cast<std::int64_t>(chunk) * 8;
  }
  // Rows [0, tile_rows) of columns [column, column + tile_columns) to `to` at `at`; zeros beyond `columns` columns and
  // the last row.
  SIMT_DEVICE void issue(Shared<Bfloat16> to, int at, int tile_rows, int column, int columns) const {
    const bool inside = chunk * 8 < columns;
    const Bfloat16* source = from + column;
    int target = at + swizzled<tile_columns>(row, chunk);
    for (int r = row; r < tile_rows; r += step) {
      simt::copy_async16(to, target, source, inside && r < rows);
      source += step * stride;
      target += step * tile_columns;
    }
  }
};

// ---- many rows of x ----

template <int m, int n, int warps_over_m, int warps_over_n, int stage_count, int blocks_of_a_processor>
struct TiledShape {
  static constexpr int tile_m = m, tile_n = n, tile_k = 64, stages = stage_count, blocks = blocks_of_a_processor;
  static constexpr int warps_m = warps_over_m, warps_n = warps_over_n;
  static constexpr int warp_m = m / warps_over_m, warp_n = n / warps_over_n;
  static constexpr int threads = warps_m * warps_n * simt::warp_lanes;
  static constexpr int stage_elements = (m + n) * tile_k;
  static constexpr int shared_bytes = stages * stage_elements * 2;
  static constexpr int m_fragments = warp_m / 16, n_fragments = warp_n / 8;
  static_assert(warp_m % 16 == 0 && warp_n % 16 == 0);
};

// Blocks in bands of so many tiles of x, a band's over all of W: x and W of what runs at once fit in the cache.
inline constexpr int band_tiles = 16;

struct TilePlace {
  int m, n;
};
SIMT_DEVICE TilePlace place_of_block(int block, int m_tiles, int n_tiles) {
  const int band = block / (band_tiles * n_tiles);
  const int in_band = block % (band_tiles * n_tiles);
  const int height = m_tiles - band * band_tiles < band_tiles ? m_tiles - band * band_tiles : band_tiles;
  return {band * band_tiles + in_band % height, in_band / height};
}

// sums += x W^T over one tile of columns in shared memory.
template <typename Tiles>
SIMT_DEVICE void multiply_tile(Shared<Bfloat16> memory, int at,
                               float (&sums)[Tiles::m_fragments * Tiles::n_fragments][4]) {
  const int lane = simt::lane(), warp = simt::warp();
  const int x_row = warp / Tiles::warps_n * Tiles::warp_m + lane % 16;
  const int w_row = Tiles::tile_m + warp % Tiles::warps_n * Tiles::warp_n + lane / 16 * 8 + lane % 8;
  SIMT_UNROLL
  for (int step = 0; step < Tiles::tile_k / step_columns; ++step) {
    std::uint32_t a[Tiles::m_fragments][4], b[Tiles::n_fragments / 2][4];
    SIMT_UNROLL
    for (int i = 0; i < Tiles::m_fragments; ++i) {
      simt::load_matrix_x4(a[i], memory, at + swizzled<Tiles::tile_k>(x_row + 16 * i, 2 * step + lane / 16));
    }
    SIMT_UNROLL
    for (int j = 0; j < Tiles::n_fragments / 2; ++j) {
      simt::load_matrix_x4(b[j], memory, at + swizzled<Tiles::tile_k>(w_row + 16 * j, 2 * step + lane / 8 % 2));
    }
    SIMT_UNROLL
    for (int i = 0; i < Tiles::m_fragments; ++i) {
      SIMT_UNROLL
      for (int j = 0; j < Tiles::n_fragments; ++j) {
        simt::mma_bf16(sums[i * Tiles::n_fragments + j], a[i], b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]);
      }
    }
  }
}

template <typename Tiles, bool tree>
SIMT_KERNEL_OF(Tiles::threads, Tiles::blocks)
linear_tiled(CudaLinear call) {
  constexpr int fragments = Tiles::m_fragments * Tiles::n_fragments;
  const Shared<Bfloat16> memory = simt::shared<Bfloat16>(0, Tiles::stages * Tiles::stage_elements);
  const TilePlace place = place_of_block(simt::block_x(), (call.m + Tiles::tile_m - 1) / Tiles::tile_m,
                                         (call.rows + Tiles::tile_n - 1) / Tiles::tile_n);
  const int m0 = place.m * Tiles::tile_m, n0 = place.n * Tiles::tile_n;
  const ColumnTiles<Tiles::tile_k> tiles(call);
  const RowCopies<Tiles::tile_k, Tiles::threads> x(call.x, call.ldx, m0, call.m - m0);
  const RowCopies<Tiles::tile_k, Tiles::threads> w(call.w, call.columns, n0, call.rows - n0);
  const auto load = [&](int tile) {
    if (tile < tiles.count) {
      const int at = tile % Tiles::stages * Tiles::stage_elements, first = tiles.first_in_segment(tile);
      const int column = tiles.segment(tile) * tiles.segment_columns + first;
      x.issue(memory, at, Tiles::tile_m, column, tiles.segment_columns - first);
      w.issue(memory, at + Tiles::tile_m * Tiles::tile_k, Tiles::tile_n, column, tiles.segment_columns - first);
    }
    simt::commit_copies();
  };
  float sums[fragments][4] = {};
  SegmentTree<tree ? fragments : 1> waiting;
  SIMT_UNROLL
  for (int stage = 0; stage < Tiles::stages - 1; ++stage) load(stage);
  for (int tile = 0; tile < tiles.count; ++tile) {
    simt::wait_copies<Tiles::stages - 2>();
    simt::sync_block();
    load(tile + Tiles::stages - 1);
    multiply_tile<Tiles>(memory, tile % Tiles::stages * Tiles::stage_elements, sums);
    if constexpr (tree) {
      if (tiles.ends_segment(tile)) waiting.add(tiles.segment(tile), tile + 1 == tiles.count, sums);
    }
  }
  simt::wait_copies<0>();
  const int row = m0 + simt::warp() / Tiles::warps_n * Tiles::warp_m;
  const int column = n0 + simt::warp() % Tiles::warps_n * Tiles::warp_n;
  SIMT_UNROLL
  for (int i = 0; i < Tiles::m_fragments; ++i) {
    SIMT_UNROLL
    for (int j = 0; j < Tiles::n_fragments; ++j) {
      store_fragment(call, row + 16 * i, column + 8 * j, sums[i * Tiles::n_fragments + j]);
    }
  }
}

// ---- few rows of x ----

// A block has a piece of W, `piece` rows of at most piece_max, all rows of x, and walks `segments` segments at once: of
// its 8 warps, warps_of_segment have each; among these warp i computes the outputs of rows 8 i, 8 (i +
// warps_of_segment) ...
template <int fragments_of_m, int segment_count, int fragments_of_a_warp, int columns_of_a_tile, int stage_count>
struct StreamShape {
  static constexpr int m_fragments = fragments_of_m, segments = segment_count, per_warp = fragments_of_a_warp;
  static constexpr int tile_k = columns_of_a_tile, stages = stage_count, warps = 8, warps_of_segment = warps / segments;
  static constexpr int threads = warps * simt::warp_lanes;
  static constexpr int x_rows = 16 * m_fragments, piece_max = 8 * warps_of_segment * per_warp;
  static constexpr int shared_bytes(int piece) { return stages * segments * (x_rows + piece) * tile_k * 2; }
};

// sums += x W^T over one tile of columns: two steps at a time, since one load of a matrix brings W of both.
template <typename Shape>
SIMT_DEVICE void stream_tile(Shared<Bfloat16> memory, int at, int piece,
                             float (&sums)[Shape::m_fragments * Shape::per_warp][4]) {
  const int lane = simt::lane(), warp = simt::warp() % Shape::warps_of_segment;
  SIMT_UNROLL
  for (int step = 0; step < Shape::tile_k / step_columns; step += 2) {
    std::uint32_t a[2][Shape::m_fragments][4];
    SIMT_UNROLL
    for (int i = 0; i < 2 * Shape::m_fragments; ++i) {
      const int row = 16 * (i / 2) + lane % 16, chunk = 2 * (step + i % 2) + lane / 16;
      simt::load_matrix_x4(a[i % 2][i / 2], memory, at + swizzled<Shape::tile_k>(row, chunk));
    }
    SIMT_UNROLL
    for (int j = 0; j < Shape::per_warp; ++j) {
      const int row = 8 * (warp + j * Shape::warps_of_segment);
      if (row >= piece) break;
      std::uint32_t b[4];
      simt::load_matrix_x4(b, memory,
                           at + swizzled<Shape::tile_k>(Shape::x_rows + row + lane % 8, 2 * step + lane / 8));
      SIMT_UNROLL
      for (int i = 0; i < Shape::m_fragments; ++i) {
        float(&sum)[4] = sums[i * Shape::per_warp + j];
        simt::mma_bf16(sum, a[0][i], b[0], b[1]);
        simt::mma_bf16(sum, a[1][i], b[2], b[3]);
      }
    }
  }
}

// Adds the warps' sums in the tree over segments and stores the block's outputs.
template <typename Shape>
SIMT_DEVICE void store_tree(const CudaLinear& call, int n0, int piece,
                            const float (&sums)[Shape::m_fragments * Shape::per_warp][4]) {
  const int lane = simt::lane(), warp = simt::warp() % Shape::warps_of_segment;
  const int outputs = Shape::x_rows * piece;
  const Shared<float> memory = simt::shared<float>(0, Shape::segments * outputs);
  simt::sync_block();  // the last tile has been read
  SIMT_UNROLL
  for (int f = 0; f < Shape::m_fragments * Shape::per_warp; ++f) {
    const int row = f / Shape::per_warp * 16 + lane / 4;
    const int column = 8 * (warp + f % Shape::per_warp * Shape::warps_of_segment) + lane % 4 * 2;
    if (column >= piece) continue;
    SIMT_UNROLL
    for (int i = 0; i < 4; ++i) {
      memory[simt::warp() / Shape::warps_of_segment * outputs + (row + i / 2 * 8) * piece + column + i % 2] =
          sums[f][i];
    }
  }
  simt::sync_block();
  for (int i = 2 * simt::thread(); i < outputs; i += 2 * Shape::threads) {
    const int row = i / piece, column = n0 + i % piece;
    if (row >= call.m || column >= call.rows) continue;
    float tree[2][Shape::segments];
    SIMT_UNROLL
    for (int s = 0; s < 2 * Shape::segments; ++s) tree[s % 2][s / 2] = memory[s / 2 * outputs + i + s % 2];
    SIMT_UNROLL
    for (int width = Shape::segments / 2; width > 0; width /= 2) {
      SIMT_UNROLL
      for (int s = 0; s < 2 * width; ++s) tree[s % 2][s / 2] = tree[s % 2][s / 2 * 2] + tree[s % 2][s / 2 * 2 + 1];
    }
    store_pair(call, row, column, tree[0][0], tree[1][0]);
  }
}

template <typename Shape>
SIMT_KERNEL_OF(Shape::threads, 1)
linear_stream(CudaLinear call, int piece) {
  const int part_elements = (Shape::x_rows + piece) * Shape::tile_k, stage_elements = Shape::segments * part_elements;
  const Shared<Bfloat16> memory = simt::shared<Bfloat16>(0, Shape::stages * stage_elements);
  const int n0 = simt::block_x() * piece;
  const int segment_columns = call.columns / Shape::segments;
  const int tiles = (segment_columns + Shape::tile_k - 1) / Shape::tile_k;
  const RowCopies<Shape::tile_k, Shape::threads> x(call.x, call.ldx, 0, call.m);
  const RowCopies<Shape::tile_k, Shape::threads> w(call.w, call.columns, n0, call.rows - n0);
  const auto load = [&](int tile) {
    const int first = tile * Shape::tile_k;
    for (int segment = 0; tile < tiles && segment < Shape::segments; ++segment) {
      const int at = tile % Shape::stages * stage_elements + segment * part_elements;
      const int column = segment * segment_columns + first;
      x.issue(memory, at, Shape::x_rows, column, segment_columns - first);
      w.issue(memory, at + Shape::x_rows * Shape::tile_k, piece, column, segment_columns - first);
    }
    simt::commit_copies();
  };
  float sums[Shape::m_fragments * Shape::per_warp][4] = {};
  SIMT_UNROLL
  for (int stage = 0; stage < Shape::stages - 1; ++stage) load(stage);
  for (int tile = 0; tile < tiles; ++tile) {
    simt::wait_copies<Shape::stages - 2>();
    simt::sync_block();
    load(tile + Shape::stages - 1);
    const int part = simt::warp() / Shape::warps_of_segment * part_elements;
    stream_tile<Shape>(memory, tile % Shape::stages * stage_elements + part, piece, sums);
  }
  simt::wait_copies<0>();
  if constexpr (Shape::segments > 1) {
    store_tree<Shape>(call, n0, piece, sums);
  } else {
    SIMT_UNROLL
    for (int f = 0; f < Shape::m_fragments * Shape::per_warp; ++f) {
      const int row = 8 * (simt::warp() + f % Shape::per_warp * Shape::warps);
      if (row < piece) store_fragment(call, f / Shape::per_warp * 16, n0 + row, sums[f]);
    }
  }
}

// ---- which kernel ----

using TiledLarge = TiledShape<128, 256, 2, 4, 3, 1>;
using TiledMedium = TiledShape<128, 128, 2, 2, 3, 2>;
using TiledSmall = TiledShape<64, 64, 2, 2, 4, 2>;
inline constexpr int stream_rows_max = 64;

// Of the device: how W is cut follows from them, which changes no bit.
struct Processors {
  int count = 1;
  int shared_bytes_max = 227 * 1024;  // of a block
};

// launch(shape, kernel, arguments...) queues a kernel.
template <typename Tiles, typename Launch>
void launch_tiled(Launch& launch, const CudaLinear& call) {
  const int blocks = (call.m + Tiles::tile_m - 1) / Tiles::tile_m * ((call.rows + Tiles::tile_n - 1) / Tiles::tile_n);
  const simt::Shape shape{.x = blocks, .threads = Tiles::threads, .shared_bytes = Tiles::shared_bytes};
  launch(shape, call.segments > 1 ? linear_tiled<Tiles, true> : linear_tiled<Tiles, false>, call);
}

// Rows of W of a block: as equal as eights allow, in as few rounds of the processors as `piece_max` rows allow.
inline int stream_piece(int rows, int processors, int piece_max) {
  const int eights = (rows + 7) / 8;
  const int rounds = (eights * 8 + processors * piece_max - 1) / (processors * piece_max);
  const int blocks = processors * rounds;
  return (eights + blocks - 1) / blocks * 8;
}

template <typename Shape, typename Launch>
void launch_stream(Launch& launch, const CudaLinear& call, const Processors& processors) {
  const int piece = stream_piece(call.rows, processors.count, Shape::piece_max);
  if (Shape::shared_bytes(piece) > processors.shared_bytes_max) return launch_tiled<TiledSmall>(launch, call);
  const simt::Shape shape{
      .x = (call.rows + piece - 1) / piece, .threads = Shape::threads, .shared_bytes = Shape::shared_bytes(piece)};
  launch(shape, linear_stream<Shape>, call, piece);
}

// Chosen from what an H100 and an H200 did (docs/cuda.md): tiles so wide that a barrier costs little beside their
// bytes.
template <int m_fragments, typename Launch>
void launch_stream_of(Launch& launch, const CudaLinear& call, const Processors& processors) {
  switch (call.segments) {
    case 1:
      return launch_stream<StreamShape<m_fragments, 1, 1, 256, m_fragments == 4 ? 3 : 4>>(launch, call, processors);
    case 2:
      return launch_stream<StreamShape<m_fragments, 2, 2, 128, m_fragments == 4 ? 3 : 4>>(launch, call, processors);
    case 4:
      return launch_stream<StreamShape<m_fragments, 4, 2, 64, m_fragments == 4 ? 3 : 4>>(launch, call, processors);
    default:
      if constexpr (m_fragments == 1) return launch_stream<StreamShape<1, 8, 4, 128, 2>>(launch, call, processors);
      return launch_stream<StreamShape<m_fragments, 8, 4, 64, m_fragments == 4 ? 2 : 3>>(launch, call, processors);
  }
}

template <typename Launch>
void launch_linear(Launch& launch, const CudaLinear& call, const Processors& processors) {
  if (call.m == 0 || call.rows == 0) return;
  if (call.m <= 16) return launch_stream_of<1>(launch, call, processors);
  if (call.m <= 32) return launch_stream_of<2>(launch, call, processors);
  const auto blocks = [&](std::int64_t m, std::int64_t n) { return (call.m + m - 1) / m * ((call.rows + n - 1) / n); };
  // More rows than that each block would read as often as W.
  if (call.m <= stream_rows_max && blocks(128, 128) < processors.count)
    return launch_stream_of<4>(launch, call, processors);
  if (blocks(128, 256) >= 2 * processors.count && TiledLarge::shared_bytes <= processors.shared_bytes_max) {
    return launch_tiled<TiledLarge>(launch, call);
  }
  if (blocks(128, 128) >= processors.count) return launch_tiled<TiledMedium>(launch, call);
  launch_tiled<TiledSmall>(launch, call);
}

}  // namespace chorus::cuda::inline SIMT_MEANING

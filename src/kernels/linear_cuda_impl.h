// Device code of linear_cuda.h, for nvcc and for the emulation. Two kernels: linear_stream for few rows of x, which is
// bound by the reading of W, and linear_tiled for many. Private to linear_cuda*.
#pragma once

#include "kernels/linear_cuda.h"
#include "kernels/linear_epilogue_impl.h"
#include "simt/simt.h"

namespace chorus::cuda::inline SIMT_MEANING {

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

// The balanced tree over segments that come one after another is a binary counter: at each level, sums that wait for
// their partner. The three trees differ in where the levels are: SegmentTree, RegisterTree, WgmmaTree.

// The partner has come.
template <int fragments>
SIMT_DEVICE void add_waiting(const float (&waiting)[fragments][4], float (&sums)[fragments][4]) {
  SIMT_UNROLL
  for (int i = 0; i < 4 * fragments; ++i) sums[i / 4][i % 4] = waiting[i / 4][i % 4] + sums[i / 4][i % 4];
}
// The sums wait, and begin again at 0 for the next segment; after the last one they are the result.
template <int fragments>
SIMT_DEVICE void keep_waiting(float (&waiting)[fragments][4], bool last, float (&sums)[fragments][4]) {
  if (last) return;
  SIMT_UNROLL
  for (int i = 0; i < 4 * fragments; ++i) {
    waiting[i / 4][i % 4] = sums[i / 4][i % 4];
    sums[i / 4][i % 4] = 0;
  }
}

// Up to eight segments, all levels in local memory: the registers are full of sums, and an array that is indexed by the
// level is not kept in them.
template <int fragments>
struct SegmentTree {
  float waiting[3][fragments][4];

  // Takes the sums of `segment`; leaves the sum of all in `sums` after the last one, else zeros.
  SIMT_DEVICE void add(int segment, bool last, float (&sums)[fragments][4]) {
    int level = 0;
    for (; (segment >> level) & 1; ++level) add_waiting(waiting[level], sums);
    keep_waiting(waiting[level], last, sums);
  }
};

// Stores outputs `column` (even) and `column` + 1 of one row from their sums; linear_epilogue_impl.h stores many.
SIMT_DEVICE void store_pair(const CudaLinear& call, int row, int column, float first, float second) {
  if (call.bias != nullptr) {
    first += call.bias[column];
    second += call.bias[column + 1];
  }
  const std::int64_t at = row * call.ldy + column;
  switch (call.output) {
    case CudaLinearOutput::store:
      *reinterpret_cast<Floats<2>*>(static_cast<float*>(call.y) + at) = {first, second};
      break;
    case CudaLinearOutput::accumulate: {
      auto* y = reinterpret_cast<Floats<2>*>(static_cast<float*>(call.y) + at);
      const Floats<2> before = *y;
      *y = {before.at[0] + first, before.at[1] + second};
      break;
    }
    case CudaLinearOutput::round:
      *reinterpret_cast<std::uint32_t*>(static_cast<Bfloat16*>(call.y) + at) = simt::pack_bfloat16(first, second);
      break;
    case CudaLinearOutput::gate:
      static_cast<Bfloat16*>(call.y)[row * call.ldy + column / 2] = simt::to_bfloat16(activated<false>(first) * second);
      break;
    case CudaLinearOutput::gelu_gate:
      static_cast<Bfloat16*>(call.y)[row * call.ldy + column / 2] = simt::to_bfloat16(activated<true>(first) * second);
      break;
  }
}

// Copies of one of `threads` threads from `first_thread` on into a tile of rows: chunk thread % chunks of every
// `step`-th row from thread / chunks on.
template <int tile_columns, int threads, int first_thread = 0>
struct RowCopies {
  static constexpr int chunks = tile_columns / 8;
  static constexpr int step = threads / chunks;
  static_assert(threads % chunks == 0 && step % 8 == 0);
  const Bfloat16* from;  // of the thread's first row
  std::int64_t stride;
  int row, chunk, rows;  // rows: that exist, of the tile

  SIMT_DEVICE RowCopies(const Bfloat16* data, std::int64_t ld, int first_row, int row_count)
      : stride(ld),
        row((simt::thread() - first_thread) / chunks),
        chunk((simt::thread() - first_thread) % chunks),
        rows(row_count) {
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
  // The chunk of row first + row of the tile, and where it goes.
  SIMT_DEVICE bool exists(int first, int columns) const { return chunk * 8 < columns && first + row < rows; }
  SIMT_DEVICE simt::Bytes16 read(int first, int column) const {
    return *reinterpret_cast<const simt::Bytes16*>(from + first * stride + column);
  }
  SIMT_DEVICE void write(const simt::Bytes16& value, Shared<Bfloat16> to, int at, int first) const {
    simt::store16(to, at + swizzled<tile_columns>(first + row, chunk), value);
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
  static_assert(warp_m % 16 == 0 && warp_n % 32 == 0 && warps_m * warps_n * 16 * warp_n * 4 <= shared_bytes);
};

// Blocks are numbered in bands: so many tiles of x by all of W. x and W of the blocks that run at once fit in the
// cache.
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
  simt::in_order();
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
  simt::sync_block();  // the stages' memory is free
  const OutputPatch<Tiles::warp_n> patch(simt::warp() * OutputPatch<Tiles::warp_n>::bytes);
  store_sums<Tiles::m_fragments>(call, patch, row, column, 16, 0, sums);
}

// ---- few rows of x ----

// A block multiplies pieces of W by all rows of x, one piece after another: a piece is `piece` rows of W, at most
// piece_max. 8 warps load, and do not stop between two pieces; each of the others computes 16 rows of W, and 8 rows of
// x in each fragment. So W is the left operand of the product, which halves what is read of x from shared memory and
// changes no bit. With two ways, other warps walk the second half of the segments at the same time as the first.
template <int fragments_of_x, int segment_count, int side_by_side, int warps_of_a_way, int columns_of_a_tile,
          int stage_count>
struct StreamShape {
  static constexpr int fragments = fragments_of_x, segments = segment_count, ways = side_by_side;
  static constexpr int warps_of_way = warps_of_a_way, tile_k = columns_of_a_tile, stages = stage_count;
  static constexpr int computing = ways * warps_of_way * simt::warp_lanes, loading = 8 * simt::warp_lanes;
  static constexpr int threads = computing + loading, segments_of_way = segments / ways;
  static constexpr int x_rows = 8 * fragments, piece_max = 16 * warps_of_way;
  static constexpr int row_bytes = stages * ways * tile_k * 2;  // of a row of x or W in all stages
  static_assert(ways <= 2 && segments_of_way <= 4);
  static constexpr int shared_bytes(int piece) {
    return row_bytes * (x_rows + piece) + (ways - 1) * computing / ways * fragments * 16;
  }
};

// Up to four segments, each level a member: the few sums of linear_stream leave registers for them.
template <int fragments>
struct RegisterTree {
  float one[fragments][4] = {}, two[fragments][4] = {};

  // As SegmentTree::add.
  SIMT_DEVICE void add(int segment, bool last, float (&sums)[fragments][4]) {
    if ((segment & 1) == 0) return keep_waiting(one, last, sums);
    add_waiting(one, sums);
    if ((segment & 2) == 0) return keep_waiting(two, last, sums);
    add_waiting(two, sums);
  }
};

// The tiles of a block's pieces in order.
template <typename Shape>
struct StreamCursor {
  int n0, rows_apart;                          // the piece's first row of W
  int segment_columns, tile = 0, segment = 0;  // the tile in the way's segment

  SIMT_DEVICE StreamCursor(const CudaLinear& call, int piece, int blocks)
      : n0(simt::block_x() * piece), rows_apart(piece * blocks), segment_columns(call.columns / Shape::segments) {}
  SIMT_DEVICE bool ends_segment() const { return (tile + 1) * Shape::tile_k >= segment_columns; }
  SIMT_DEVICE bool ends_piece() const { return segment + 1 == Shape::segments_of_way && ends_segment(); }
  SIMT_DEVICE void advance() {
    if (!ends_segment()) {
      ++tile;
      return;
    }
    tile = 0;
    if (++segment < Shape::segments_of_way) return;
    segment = 0;
    n0 += rows_apart;
  }
  // The tile's first column in `way`, and how many there are from it to the segment's end.
  SIMT_DEVICE int column(int way) const {
    return (way * Shape::segments_of_way + segment) * segment_columns + tile * Shape::tile_k;
  }
  SIMT_DEVICE int left() const { return segment_columns - tile * Shape::tile_k; }
};

// The operands of some steps: one load of a matrix brings x of two.
template <typename Shape>
struct StreamFragments {
  // Few fragments of x leave registers for more steps on their way.
  static constexpr int steps = Shape::fragments > 2 ? 2 : 4;
  std::uint32_t w[steps][4], x[steps / 2][Shape::fragments][4];

  SIMT_DEVICE void load(Shared<Bfloat16> memory, int at, int first) {
    const int lane = simt::lane(), w_row = Shape::x_rows + simt::warp() % Shape::warps_of_way * 16 + lane % 16;
    SIMT_UNROLL
    for (int i = 0; i < steps; ++i)
      simt::load_matrix_x4(w[i], memory, at + swizzled<Shape::tile_k>(w_row, 2 * (first + i) + lane / 16));
    SIMT_UNROLL
    for (int i = 0; i < steps / 2 * Shape::fragments; ++i) {
      const int pair = i / Shape::fragments, row = i % Shape::fragments * 8 + lane % 8;
      simt::load_matrix_x4(x[pair][i % Shape::fragments], memory,
                           at + swizzled<Shape::tile_k>(row, 2 * first + 4 * pair + lane / 8));
    }
  }
  SIMT_DEVICE void multiply(float (&sums)[Shape::fragments][4]) const {
    SIMT_UNROLL
    for (int i = 0; i < steps * Shape::fragments; ++i) {
      const int step = i / Shape::fragments, f = i % Shape::fragments, half = step % 2 * 2;
      const std::uint32_t(&pair)[4] = x[step / 2][f];
      simt::mma_bf16(sums[f], w[step], pair[half], pair[half + 1]);
    }
  }
};

// sums += W x^T over one tile of columns. The next fragments are loaded while these are multiplied: the barriers of the
// warp keep the compiler from moving the loads down to where they are needed.
template <typename Shape>
SIMT_DEVICE void stream_tile(Shared<Bfloat16> memory, int at, float (&sums)[Shape::fragments][4]) {
  constexpr int together = StreamFragments<Shape>::steps, groups = Shape::tile_k / step_columns / together;
  StreamFragments<Shape> fragments[2];
  fragments[0].load(memory, at, 0);
  SIMT_UNROLL
  for (int group = 0; group < groups; ++group) {
    if (group + 1 < groups) fragments[(group + 1) % 2].load(memory, at, (group + 1) * together);
    simt::sync_warp();
    fragments[group % 2].multiply(sums);
  }
}

// A thread has two outputs of a row of W, which belong to two rows of x. It stores two of a row of x, and has the other
// one from the thread with the next row of W, four lanes away.
template <typename Shape>
SIMT_DEVICE void store_rows(const CudaLinear& call, int n0, int piece, const float (&sums)[Shape::fragments][4]) {
  const int lane = simt::lane(), odd = lane / 4 % 2, row = simt::warp() % Shape::warps_of_way * 16 + lane / 4 - odd;
  SIMT_UNROLL
  for (int i = 0; i < 2 * Shape::fragments; ++i) {
    const float* pair = sums[i / 2] + i % 2 * 2;
    const float mine = odd != 0 ? pair[1] : pair[0];
    const float theirs = simt::shuffle_xor(odd != 0 ? pair[0] : pair[1], 4);
    const int x_row = i / 2 * 8 + lane % 4 * 2 + odd, w_row = row + i % 2 * 8;
    if (x_row >= call.m || w_row >= piece || n0 + w_row >= call.rows) continue;
    store_pair(call, x_row, n0 + w_row, odd != 0 ? theirs : mine, odd != 0 ? mine : theirs);
  }
}

// The last level of the tree: the second way's sums go to the first, at `memory`. All threads of the block come here.
template <typename Shape>
SIMT_DEVICE void join_ways(Shared<float> memory, float (&sums)[Shape::fragments][4]) {
  const int way = simt::warp() / Shape::warps_of_way;  // 2 and more: a warp that loads
  const int at = simt::thread() % (Shape::computing / 2);
  SIMT_UNROLL
  for (int i = 0; i < 4 * Shape::fragments; ++i) {
    if (way == 1) memory[i * (Shape::computing / 2) + at] = sums[i / 4][i % 4];
  }
  simt::sync_block();
  SIMT_UNROLL
  for (int i = 0; i < 4 * Shape::fragments; ++i) {
    if (way == 0) sums[i / 4][i % 4] = sums[i / 4][i % 4] + memory[i * (Shape::computing / 2) + at];
  }
}

// A block's tiles in shared memory: a ring of stages, of each the ways' parts, of each rows of x, then of W.
template <typename Shape>
struct StreamRing {
  using Copies = RowCopies<Shape::tile_k, Shape::loading, Shape::computing>;
  const CudaLinear& call;
  int piece, part_elements;
  Shared<Bfloat16> memory;

  SIMT_DEVICE StreamRing(const CudaLinear& linear, int rows_of_piece)
      : call(linear),
        piece(rows_of_piece),
        part_elements((Shape::x_rows + rows_of_piece) * Shape::tile_k),
        memory(simt::shared<Bfloat16>(0, Shape::stages * Shape::ways * part_elements)) {}

  SIMT_DEVICE int at(int number, int way) const { return (number % Shape::stages * Shape::ways + way) * part_elements; }
  SIMT_DEVICE void load_w(const StreamCursor<Shape>& cursor, int number) const {
    if (cursor.n0 >= call.rows) return;
    const Copies w(call.w, call.columns, cursor.n0, call.rows - cursor.n0);
    SIMT_UNROLL
    for (int way = 0; way < Shape::ways; ++way) {
      w.issue(memory, at(number, way) + Shape::x_rows * Shape::tile_k, piece, cursor.column(way), cursor.left());
    }
  }
  SIMT_DEVICE void load_x(const StreamCursor<Shape>& cursor, int number) const {
    if (cursor.n0 >= call.rows) return;
    const Copies x(call.x, call.ldx, 0, call.m);
    SIMT_UNROLL
    for (int way = 0; way < Shape::ways; ++way)
      x.issue(memory, at(number, way), Shape::x_rows, cursor.column(way), cursor.left());
  }
  // All stages but one. No kernel writes W: it is loaded while earlier kernels end. x comes by plain loads after that:
  // as copies it would be in groups behind all of W, and the first tile would wait for the last.
  SIMT_DEVICE void fill(StreamCursor<Shape>& next) const {
    StreamCursor<Shape> cursor = next;
    for (int stage = 0; stage < Shape::stages - 1; ++stage, cursor.advance()) {
      load_w(cursor, stage);
      simt::commit_copies();
    }
    simt::wait_for_previous();
    constexpr int count = (Shape::stages - 1) * Shape::ways;
    const Copies x(call.x, call.ldx, 0, call.m);
    SIMT_UNROLL
    for (int first = 0; first < Shape::x_rows; first += Copies::step) {
      simt::Bytes16 chunks[count];
      cursor = next;
      SIMT_UNROLL
      for (int i = 0; i < count; ++i) {
        if (i > 0 && i % Shape::ways == 0) cursor.advance();
        const bool there = cursor.n0 < call.rows && x.exists(first, cursor.left());
        chunks[i] = there ? x.read(first, cursor.column(i % Shape::ways)) : simt::Bytes16{};
      }
      SIMT_UNROLL
      for (int i = 0; i < count && first + x.row < Shape::x_rows; ++i)
        x.write(chunks[i], memory, at(i / Shape::ways, i % Shape::ways), first);
    }
    for (int stage = 0; stage < Shape::stages - 1; ++stage) next.advance();
  }
};

template <typename Shape>
SIMT_KERNEL_OF(Shape::threads, 1)
linear_stream(CudaLinear call, int piece, int blocks) {
  simt::let_next_begin();
  const bool loads = simt::thread() >= Shape::computing;
  const StreamRing<Shape> ring(call, piece);
  const Shared<float> way_sums = simt::shared<float>(Shape::row_bytes * (Shape::x_rows + piece),
                                                     (Shape::ways - 1) * Shape::computing / 2 * Shape::fragments * 4);
  StreamCursor<Shape> now(call, piece, blocks), next = now;
  if (loads) {
    ring.fill(next);
  } else {
    simt::wait_for_previous();
  }
  float sums[Shape::fragments][4] = {};
  RegisterTree<Shape::segments_of_way == 1 ? 1 : Shape::fragments> tree;
  for (int number = 0; now.n0 < call.rows; ++number, now.advance()) {
    if (loads) simt::wait_copies<Shape::stages - 2>();
    simt::sync_block();
    if (loads) {
      ring.load_w(next, number + Shape::stages - 1);
      ring.load_x(next, number + Shape::stages - 1);
      simt::commit_copies();
      next.advance();
    } else {
      if (simt::warp() % Shape::warps_of_way * 16 < piece)
        stream_tile<Shape>(ring.memory, ring.at(number, simt::warp() / Shape::warps_of_way), sums);
      if constexpr (Shape::segments_of_way > 1) {
        if (now.ends_segment()) tree.add(now.segment, now.ends_piece(), sums);
      }
    }
    if (!now.ends_piece()) continue;
    if constexpr (Shape::ways > 1) join_ways<Shape>(way_sums, sums);
    if (simt::warp() < Shape::warps_of_way) store_rows<Shape>(call, now.n0, piece, sums);
    SIMT_UNROLL
    for (int i = 0; i < 4 * Shape::fragments; ++i) sums[i / 4][i % 4] = 0;
  }
  simt::wait_copies<0>();
}

// ---- which kernel ----

using TiledLarge = TiledShape<128, 256, 2, 4, 3, 1>;
using TiledMedium = TiledShape<128, 128, 2, 2, 3, 2>;
using TiledSmall = TiledShape<64, 64, 2, 2, 4, 2>;
inline constexpr int stream_rows_max = 32;

// Of the device: how W is cut follows from them, which changes no bit.
struct Processors {
  int count = 1;
  int shared_bytes_max = 227 * 1024;  // of a block
};

// launch(shape, kernel, arguments...) queues a kernel.
template <typename Tiles, typename Launch>
void launch_tiled(Launch& launch, const CudaLinear& call) {
  const int blocks = (call.m + Tiles::tile_m - 1) / Tiles::tile_m * ((call.rows + Tiles::tile_n - 1) / Tiles::tile_n);
  const simt::Shape shape{
      .x = blocks, .threads = Tiles::threads, .shared_bytes = Tiles::shared_bytes, .overlaps = true};
  launch(shape, call.segments > 1 ? linear_tiled<Tiles, true> : linear_tiled<Tiles, false>, call);
}

// How many rows of W a piece has, where a block has one piece or several: the number with which the busiest block has
// the fewest rows. Less than 48 take as long as 48: a warp's chain of products.
inline int stream_piece(int rows, int processors, int piece_max) {
  constexpr int sixteen = 16, rows_of_chain = 48;
  int best = 0, best_rows = 0;
  for (int piece = piece_max; piece > 0; piece -= sixteen) {
    const int rounds = (rows + processors * piece - 1) / (processors * piece);
    const int walked = rounds * (piece < rows_of_chain && rounds > 1 ? rows_of_chain : piece);
    if (best == 0 || walked < best_rows) best = piece, best_rows = walked;
  }
  return best;
}

// The caller sees to it that a block's memory fits.
template <typename Shape, typename Launch>
void launch_stream(Launch& launch, const CudaLinear& call, const Processors& processors) {
  const int piece = stream_piece(call.rows, processors.count, Shape::piece_max);
  const int pieces = (call.rows + piece - 1) / piece, blocks = pieces < processors.count ? pieces : processors.count;
  launch(
      simt::Shape{.x = blocks, .threads = Shape::threads, .shared_bytes = Shape::shared_bytes(piece), .overlaps = true},
      linear_stream<Shape>, call, piece, blocks);
}

// The first shape if it fits the device and takes the rows in one round, else the last.
template <typename First, typename Last, typename Launch>
void launch_fitting_stream(Launch& launch, const CudaLinear& call, const Processors& processors) {
  const auto fits = [&]<typename Shape>(Shape) {
    return Shape::shared_bytes(stream_piece(call.rows, processors.count, Shape::piece_max)) <=
           processors.shared_bytes_max;
  };
  if (call.rows <= processors.count * First::piece_max && fits(First{}))
    return launch_stream<First>(launch, call, processors);
  if (!fits(Last{})) return launch_tiled<TiledSmall>(launch, call);
  launch_stream<Last>(launch, call, processors);
}

// Chosen from what an H200 did (docs/cuda.md): as many bytes on their way as shared memory holds, in tiles so wide that
// a barrier costs little beside their bytes.
template <int fragments, int segments, typename Launch>
void launch_stream_segments(Launch& launch, const CudaLinear& call, const Processors& processors) {
  if constexpr (segments == 1) {
    using Narrow = StreamShape<fragments, 1, 1, 4, 256, fragments == 4 ? 4 : 5>;
    using Wide = StreamShape<fragments, 1, 1, fragments == 4 ? 6 : 8, 256, 3>;
    return launch_fitting_stream<Narrow, Wide>(launch, call, processors);
  } else {
    using Narrow = StreamShape<fragments, segments, 2, 2, 256, fragments == 4 ? 3 : fragments == 2 ? 4 : 5>;
    using Wide = StreamShape<fragments, segments, 2, 4, 128, fragments == 4 ? 4 : 5>;
    return launch_fitting_stream<Narrow, Wide>(launch, call, processors);
  }
}

template <int fragments, typename Launch>
void launch_stream_of(Launch& launch, const CudaLinear& call, const Processors& processors) {
  switch (call.segments) {
    case 1:
      return launch_stream_segments<fragments, 1>(launch, call, processors);
    case 2:
      return launch_stream_segments<fragments, 2>(launch, call, processors);
    case 4:
      return launch_stream_segments<fragments, 4>(launch, call, processors);
    default:
      return launch_stream_segments<fragments, 8>(launch, call, processors);
  }
}

template <typename Launch>
void launch_linear(Launch& launch, const CudaLinear& call, const Processors& processors) {
  if (call.m == 0 || call.rows == 0) return;
  if (call.m <= 8) return launch_stream_of<1>(launch, call, processors);
  if (call.m <= 16) return launch_stream_of<2>(launch, call, processors);
  if (call.m <= stream_rows_max) return launch_stream_of<4>(launch, call, processors);
  const auto blocks = [&](std::int64_t m, std::int64_t n) { return (call.m + m - 1) / m * ((call.rows + n - 1) / n); };
  if (blocks(128, 256) >= 2 * processors.count && TiledLarge::shared_bytes <= processors.shared_bytes_max) {
    return launch_tiled<TiledLarge>(launch, call);
  }
  if (blocks(128, 128) >= processors.count) return launch_tiled<TiledMedium>(launch, call);
  launch_tiled<TiledSmall>(launch, call);
}

}  // namespace chorus::cuda::inline SIMT_MEANING

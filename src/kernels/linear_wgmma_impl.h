// Device code of linear_wgmma.h, for nvcc alone. One block a processor walks tiles of outputs. Its first warpgroup
// brings tiles of x and W by TMA into a ring of stages, and runs ahead of the others into the next tile; each of the
// others multiplies 64 rows of x by tile_n of W and stores them. Private to linear_wgmma.cu.
#pragma once

#include "kernels/cuda_launch.h"
#include "kernels/linear_cuda_impl.h"
#include "kernels/linear_wgmma.h"
#include "kernels/wgmma.h"

namespace chorus::cuda::inline SIMT_MEANING {

// is_tree: for more than one segment.
template <int group_count, int n, int stage_count, bool is_tree>
struct WgmmaShape {
  static constexpr int groups = group_count, tile_m = 64 * groups, tile_n = n, tile_k = 64, stages = stage_count;
  static constexpr int threads = 128 * (groups + 1), fragments = n / 8;
  static constexpr bool tree = is_tree;
  using Patch = OutputPatch<64>;
  // Stages begin at a multiple of 1024, which the swizzle wants; then sums of the tree, then a patch a warp, then two
  // barriers a stage.
  static constexpr int stage_elements = (tile_m + n) * tile_k, sums_at = stages * stage_elements * 2;
  static constexpr int patches_at = sums_at + (tree ? tile_m * tile_n * 4 : 0);
  static constexpr int barriers_at = patches_at + groups * 4 * Patch::bytes;
  static constexpr int shared_bytes = 1024 + barriers_at + stages * 16;
  static_assert(shared_bytes <= 227 * 1024);
};

template <typename Shape>
struct WgmmaMemory {
  int base;  // of the stages
  Bfloat16* tiles;
  std::uint64_t* full;
  std::uint64_t* empty;
  float* sums;

  SIMT_DEVICE WgmmaMemory() {
    const std::uint32_t address = wgmma::shared_address(simt::shared_memory_of_block);
    base = static_cast<int>((1024 - address % 1024) % 1024);
    unsigned char* aligned = simt::shared_memory_of_block + base;
    tiles = reinterpret_cast<Bfloat16*>(aligned);
    sums = reinterpret_cast<float*>(aligned + Shape::sums_at);
    full = reinterpret_cast<std::uint64_t*>(aligned + Shape::barriers_at);
    empty = full + Shape::stages;
  }
  // The block's first thread prepares the barriers; all come here.
  SIMT_DEVICE void begin() const {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    if (simt::thread() == 0) {
      for (int stage = 0; stage < Shape::stages; ++stage) {
        wgmma::init_barrier(full + stage, 1);
        wgmma::init_barrier(empty + stage, Shape::groups);
      }
      wgmma::show_to_copies();
    }
    simt::sync_block();
#endif
  }
  SIMT_DEVICE Bfloat16* x(int stage) const {
    return tiles + stage * Shape::stage_elements;
  }
  SIMT_DEVICE Bfloat16* w(int stage) const {
    return x(stage) + Shape::tile_m * Shape::tile_k;
  }
};

// The next stage of the ring, over all tiles of outputs. `phase` is the parity of the number of times that the ring was
// walked: the n-th filling of a stage completes phase n of its `full`, its n-th release phase n of its `empty`.
template <int stages>
struct WgmmaRing {
  int stage = 0, phase = 0;

  SIMT_DEVICE void next() {
    if (++stage < stages) return;
    stage = 0;
    phase ^= 1;
  }
};

// The tiles of outputs of a block, in the order of place_of_block: block, block + blocks, ...
template <typename Shape>
struct WgmmaTiles {
  int m_tiles, n_tiles, tile;

  SIMT_DEVICE explicit WgmmaTiles(const CudaLinear& call)
      : m_tiles((call.m + Shape::tile_m - 1) / Shape::tile_m),
        n_tiles((call.rows + Shape::tile_n - 1) / Shape::tile_n),
        tile(simt::block_x()) {}
  SIMT_DEVICE bool has() const { return tile < m_tiles * n_tiles; }
  SIMT_DEVICE void next() { tile += static_cast<int>(gridDim.x); }
  // The tile's first row of x and of W.
  SIMT_DEVICE TilePlace first() const {
    const TilePlace place = place_of_block(tile, m_tiles, n_tiles);
    return {place.m * Shape::tile_m, place.n * Shape::tile_n};
  }
};

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
// How many stages of the block's first tile get W before earlier kernels have ended.
template <typename Shape>
SIMT_DEVICE int early_stages(const CudaLinear& call) {
  const int of_tile = call.columns / Shape::tile_k;
  return of_tile < Shape::stages ? of_tile : Shape::stages;
}
template <typename Shape>
SIMT_DEVICE void bring_early(const WgmmaMemory<Shape>& memory, const CUtensorMap* w, const CudaLinear& call) {
  const WgmmaTiles<Shape> tiles(call);
  if (!tiles.has()) return;
  for (int stage = 0; stage < early_stages<Shape>(call); ++stage) {
    wgmma::expect_bytes(memory.full + stage, Shape::stage_elements * 2);
    wgmma::load_box(memory.w(stage), w, memory.full + stage, stage * Shape::tile_k, tiles.first().n);
  }
}

// Loads x and W of one tile of outputs; W of its first `early` stages was asked for before. The first walk of the ring
// waits for phase -1, which counts as complete.
template <typename Shape>
SIMT_DEVICE void bring_tile(const WgmmaMemory<Shape>& memory, WgmmaRing<Shape::stages>& ring, const CUtensorMap* x,
                            const CUtensorMap* w, const TilePlace& first, int columns, int early) {
  for (int column = 0; column < columns; column += Shape::tile_k, ring.next(), --early) {
    std::uint64_t* full = memory.full + ring.stage;
    if (early <= 0) {
      wgmma::wait(memory.empty + ring.stage, ring.phase ^ 1);
      wgmma::expect_bytes(full, Shape::stage_elements * 2);
      wgmma::load_box(memory.w(ring.stage), w, full, column, first.n);
    }
    wgmma::load_box(memory.x(ring.stage), x, full, column, first.m);
  }
}

// One thread brings all.
template <typename Shape>
SIMT_DEVICE void bring_tiles(const WgmmaMemory<Shape>& memory, const CUtensorMap* x, const CUtensorMap* w,
                             const CudaLinear& call) {
  WgmmaRing<Shape::stages> ring;
  int early = early_stages<Shape>(call);
  for (WgmmaTiles<Shape> tiles(call); tiles.has(); tiles.next(), early = 0)
    bring_tile(memory, ring, x, w, tiles.first(), call.columns, early);
}

// sums += the product of one tile, which stays on its way.
template <typename Shape>
SIMT_DEVICE void multiply_stage(const WgmmaMemory<Shape>& memory, int stage, int group,
                                float (&sums)[Shape::fragments][4]) {
  const std::uint64_t a = wgmma::descriptor(memory.x(stage) + group * 64 * Shape::tile_k);
  const std::uint64_t b = wgmma::descriptor(memory.w(stage));
  wgmma::begin();
  SIMT_UNROLL
  for (int step = 0; step < Shape::tile_k / step_columns; ++step) {
    wgmma::multiply<Shape::tile_n>(sums, a + 2 * step, b + 2 * step);
  }
  wgmma::commit();
}

// Up to eight segments: two levels in registers, each a member since an index would move them to local memory, and the
// third in shared memory, of which this thread has every `stride`th float from `far` on.
template <int fragments, int stride>
struct WgmmaTree {
  using Sums = float[fragments][4];
  Sums first, second;
  float* far;

  // As SegmentTree::add.
  SIMT_DEVICE void add(int segment, bool last, Sums& sums) {
    if ((segment & 1) == 0) return keep_waiting(first, last, sums);
    add_waiting(first, sums);
    if ((segment & 2) == 0) return keep_waiting(second, last, sums);
    add_waiting(second, sums);
    if ((segment & 4) != 0) {
      SIMT_UNROLL
      for (int i = 0; i < 4 * fragments; ++i) sums[i / 4][i % 4] = far[stride * i] + sums[i / 4][i % 4];
    } else if (!last) {
      SIMT_UNROLL
      for (int i = 0; i < 4 * fragments; ++i) {
        far[stride * i] = sums[i / 4][i % 4];
        sums[i / 4][i % 4] = 0;
      }
    }
  }
};

// This warpgroup has read the stage (none: -1): it may be filled again.
template <typename Shape>
SIMT_DEVICE void release(const WgmmaMemory<Shape>& memory, int stage) {
  if (stage >= 0 && simt::thread() % 128 == 0) wgmma::arrive(memory.empty + stage);
}

// sums = x W^T of one tile of outputs; all of its stages are released, so that those of the next can come while this
// one is stored.
template <typename Shape>
SIMT_DEVICE void multiply_columns(const WgmmaMemory<Shape>& memory, WgmmaRing<Shape::stages>& ring,
                                  const CudaLinear& call, int group, float (&sums)[Shape::fragments][4]) {
  WgmmaTree<Shape::tree ? Shape::fragments : 1, 128 * Shape::groups> waiting;
  waiting.far = memory.sums + simt::thread() - 128;
  const int tiles = call.columns / Shape::tile_k, of_segment = tiles / call.segments;
  int left = of_segment, segment = 0, on_its_way = -1;
  SIMT_UNROLL
  for (int i = 0; i < 4 * Shape::fragments; ++i) wgmma::zero(sums[i / 4][i % 4]);
  for (int tile = 0; tile < tiles; ++tile) {
    wgmma::wait(memory.full + ring.stage, ring.phase);
    multiply_stage<Shape>(memory, ring.stage, group, sums);
    wgmma::wait_products<1>();  // the tile before is done
    release(memory, on_its_way);
    on_its_way = ring.stage;
    ring.next();
    if constexpr (Shape::tree) {
      if (--left > 0) continue;
      wgmma::wait_products<0>();
      release(memory, on_its_way);
      on_its_way = -1;
      waiting.add(segment, segment + 1 == call.segments, sums);
      left = of_segment;
      ++segment;
    }
  }
  wgmma::wait_products<0>();
  release(memory, on_its_way);
}

// Prefetches a warp's 16 x tile_n float32 of y, from (row, column) on, which are added to at the tile's end.
template <typename Shape>
SIMT_DEVICE void prefetch_residual(const CudaLinear& call, int row, int column) {
  constexpr int line_floats = 32, lines = Shape::tile_n / line_floats;
  for (int i = simt::lane(); i < 16 * lines; i += simt::warp_lanes) {
    const int at_row = row + i / lines, at_column = column + i % lines * line_floats;
    if (at_row < call.m && at_column < call.rows) {
      wgmma::prefetch(static_cast<const float*>(call.y) + at_row * call.ldy + at_column);
    }
  }
}

template <typename Shape>
SIMT_DEVICE void multiply_tiles(const WgmmaMemory<Shape>& memory, const CudaLinear& call) {
  using Patch = typename Shape::Patch;
  const int warp = simt::warp() - 4, group = warp / 4;
  const Patch patch(memory.base + Shape::patches_at + warp * Patch::bytes);
  WgmmaRing<Shape::stages> ring;
  float sums[Shape::fragments][4];
  for (WgmmaTiles<Shape> tiles(call); tiles.has(); tiles.next()) {
    const TilePlace first = tiles.first();
    const int row = first.m + warp * 16;
    if (call.output == CudaLinearOutput::accumulate) prefetch_residual<Shape>(call, row, first.n);
    multiply_columns<Shape>(memory, ring, call, group, sums);
    store_sums<Shape::tile_n / Patch::columns>(call, patch, row, first.n, 0, Patch::columns, sums);
  }
}
#endif

template <typename Shape>
__global__ void __launch_bounds__(Shape::threads, 1)
    linear_wgmma_tiles(const __grid_constant__ CUtensorMap x, const __grid_constant__ CUtensorMap w, CudaLinear call) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  // Two consumers' 240 registers and the producer's 24 are what a processor has; one consumer needs no such exchange.
  constexpr bool exchange = Shape::groups > 1;
  const WgmmaMemory<Shape> memory;
  memory.begin();
  if (simt::thread() == 0) bring_early(memory, &w, call);
  simt::in_order();
  if (simt::thread() < 128) {
    if constexpr (exchange) wgmma::fewer_registers<24>();
    if (simt::thread() == 0) bring_tiles(memory, &x, &w, call);
  } else {
    if constexpr (exchange) wgmma::more_registers<240>();
    multiply_tiles(memory, call);
  }
#endif
}

// Rows of `columns` bfloat16 in boxes of box_rows x 64, swizzled; false: not possible.
bool make_tensor_map(CUtensorMap* map, const Bfloat16* data, std::int64_t rows, std::int64_t columns,
                     std::int64_t stride, int box_rows);

template <typename Shape>
void launch_wgmma(CudaQueue& queue, const CudaLinear& call) {
  CUtensorMap x, w;
  if (!make_tensor_map(&x, call.x, call.m, call.columns, call.ldx, Shape::tile_m) ||
      !make_tensor_map(&w, call.w, call.rows, call.columns, call.columns, Shape::tile_n)) {
    if (queue.error == nullptr) queue.error = "cuTensorMapEncodeTiled failed";
    return;
  }
  const int tiles = (call.m + Shape::tile_m - 1) / Shape::tile_m * ((call.rows + Shape::tile_n - 1) / Shape::tile_n);
  CudaLaunch launch{queue};
  launch(simt::Shape{.x = tiles < queue.processors ? tiles : queue.processors,
                     .threads = Shape::threads,
                     .shared_bytes = Shape::shared_bytes,
                     .overlaps = true},
         linear_wgmma_tiles<Shape>, x, w, call);
}

}  // namespace chorus::cuda::inline SIMT_MEANING

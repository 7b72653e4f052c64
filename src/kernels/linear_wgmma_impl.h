// Device code of linear_wgmma.h, for nvcc alone. A warpgroup brings tiles by TMA, two multiply them: 128 rows of x by
// tile_n of W a block, each multiplying group 64 rows of x. Private to linear_wgmma.cu and the benchmarks.
#pragma once

#include "kernels/cuda_launch.h"
#include "kernels/linear_cuda_impl.h"
#include "kernels/linear_wgmma.h"
#include "kernels/wgmma.h"

namespace chorus::cuda::inline SIMT_MEANING {

// is_tree: for more than one segment.
template <int n, int stage_count, bool is_tree>
struct WgmmaShape {
  static constexpr int tile_m = 128, tile_n = n, tile_k = 64, stages = stage_count, threads = 384;
  static constexpr int stage_elements = (tile_m + n) * tile_k;
  static constexpr bool tree = is_tree;
  // Stages begin at a multiple of 1024, which the swizzle wants; then two barriers a stage; then sums of the tree.
  static constexpr int barrier_bytes = stages * 16, sum_bytes = tree ? tile_m * tile_n * 4 : 0;
  static constexpr int shared_bytes = 1024 + stages * stage_elements * 2 + barrier_bytes + sum_bytes;
  static constexpr int fragments = n / 8;
  static_assert(n % 128 == 0 && shared_bytes <= 227 * 1024);
};

template <typename Shape>
struct WgmmaMemory {
  Bfloat16* tiles;
  std::uint64_t* full;
  std::uint64_t* empty;
  float* sums;

  SIMT_DEVICE WgmmaMemory() {
    const std::uint32_t address = wgmma::shared_address(simt::shared_memory_of_block);
    unsigned char* aligned = simt::shared_memory_of_block + ((1024 - address % 1024) % 1024);
    tiles = reinterpret_cast<Bfloat16*>(aligned);
    full = reinterpret_cast<std::uint64_t*>(aligned + Shape::stages * Shape::stage_elements * 2);
    empty = full + Shape::stages;
    sums = reinterpret_cast<float*>(empty + Shape::stages);
  }
  SIMT_DEVICE Bfloat16* x(int stage) const { return tiles + stage * Shape::stage_elements; }
  SIMT_DEVICE Bfloat16* w(int stage) const { return x(stage) + Shape::tile_m * Shape::tile_k; }
};

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
// One thread brings all tiles.
template <typename Shape>
SIMT_DEVICE void bring_tiles(const WgmmaMemory<Shape>& memory, const CUtensorMap* x, const CUtensorMap* w, int tiles,
                             int m0, int n0) {
  for (int tile = 0; tile < tiles; ++tile) {
    const int stage = tile % Shape::stages;
    wgmma::wait(memory.empty + stage, (tile / Shape::stages & 1) ^ 1);
    wgmma::expect_bytes(memory.full + stage, Shape::stage_elements * 2);
    wgmma::load_box(memory.x(stage), x, memory.full + stage, tile * Shape::tile_k, m0);
    wgmma::load_box(memory.w(stage), w, memory.full + stage, tile * Shape::tile_k, n0);
  }
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
    SIMT_UNROLL
    for (int half = 0; half < Shape::tile_n / 128; ++half) {
      wgmma::multiply(sums + half * 16, a + 2 * step, b + half * (128 * Shape::tile_k * 2 >> 4) + 2 * step);
    }
  }
  wgmma::commit();
}

// linear_cuda_impl.h's SegmentTree with two levels in registers and the third in shared memory, of which this thread
// has every 256th float from `far` on. Each level is a member: an index would move the registers to local memory.
template <int fragments>
struct WgmmaTree {
  using Sums = float[fragments][4];
  Sums first, second;
  float* far;

  // As SegmentTree::add.
  SIMT_DEVICE void add(int segment, bool last, Sums& sums) {
    if ((segment & 1) == 0) return leave(first, last, sums);
    take(first, sums);
    if ((segment & 2) == 0) return leave(second, last, sums);
    take(second, sums);
    SIMT_UNROLL
    for (int i = 0; i < 4 * fragments; ++i) {
      float& sum = sums[i / 4][i % 4];
      if ((segment & 4) != 0) {
        sum = far[256 * i] + sum;
      } else if (!last) {
        far[256 * i] = sum;
        sum = 0;
      }
    }
  }

 private:
  SIMT_DEVICE static void take(const Sums& waiting, Sums& sums) {
    SIMT_UNROLL
    for (int i = 0; i < 4 * fragments; ++i) sums[i / 4][i % 4] = waiting[i / 4][i % 4] + sums[i / 4][i % 4];
  }
  SIMT_DEVICE static void leave(Sums& waiting, bool last, Sums& sums) {
    if (last) return;
    SIMT_UNROLL
    for (int i = 0; i < 4 * fragments; ++i) {
      waiting[i / 4][i % 4] = sums[i / 4][i % 4];
      sums[i / 4][i % 4] = 0;
    }
  }
};

// This warpgroup has read the stage: it may be filled again.
template <typename Shape>
SIMT_DEVICE void release(const WgmmaMemory<Shape>& memory, int tile) {
  if (tile >= 0 && simt::thread() % 128 == 0) wgmma::arrive(memory.empty + tile % Shape::stages);
}

template <typename Shape>
SIMT_DEVICE void multiply_tiles(const WgmmaMemory<Shape>& memory, const CudaLinear& call, int tiles, int group,
                                float (&sums)[Shape::fragments][4]) {
  WgmmaTree<Shape::tree ? Shape::fragments : 1> waiting;
  waiting.far = memory.sums + simt::thread() - 128;
  const int of_segment = tiles / call.segments;
  int left = of_segment, segment = 0;
  for (int tile = 0; tile < tiles; ++tile) {
    const int stage = tile % Shape::stages;
    wgmma::wait(memory.full + stage, tile / Shape::stages & 1);
    multiply_stage<Shape>(memory, stage, group, sums);
    wgmma::wait_products<1>();  // the tile before is done
    release(memory, tile - 1);
    if constexpr (Shape::tree) {
      if (--left > 0) continue;
      wgmma::wait_products<0>();
      waiting.add(segment, segment + 1 == call.segments, sums);
      left = of_segment;
      ++segment;
    }
  }
  wgmma::wait_products<0>();
}
#endif

template <typename Shape>
__global__ void __launch_bounds__(Shape::threads, 1)
    linear_wgmma_tiles(const __grid_constant__ CUtensorMap x, const __grid_constant__ CUtensorMap w, CudaLinear call) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  const WgmmaMemory<Shape> memory;
  if (simt::thread() == 0) {
    for (int stage = 0; stage < Shape::stages; ++stage) {
      wgmma::init_barrier(memory.full + stage, 1);
      wgmma::init_barrier(memory.empty + stage, 2);
    }
    wgmma::show_to_copies();
  }
  simt::sync_block();
  const TilePlace place = place_of_block(simt::block_x(), (call.m + Shape::tile_m - 1) / Shape::tile_m,
                                         (call.rows + Shape::tile_n - 1) / Shape::tile_n);
  const int m0 = place.m * Shape::tile_m, n0 = place.n * Shape::tile_n, tiles = call.columns / Shape::tile_k;
  if (simt::thread() < 128) {
    wgmma::fewer_registers<24>();
    if (simt::thread() == 0) bring_tiles(memory, &x, &w, tiles, m0, n0);
  } else {
    wgmma::more_registers<240>();
    const int group = simt::thread() / 128 - 1;
    float sums[Shape::fragments][4] = {};
    multiply_tiles<Shape>(memory, call, tiles, group, sums);
    const int row = m0 + group * 64 + simt::warp() % 4 * 16;
    SIMT_UNROLL
    for (int i = 0; i < Shape::fragments; ++i) store_fragment(call, row, n0 + 8 * i, sums[i]);
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
  const int blocks = (call.m + Shape::tile_m - 1) / Shape::tile_m * ((call.rows + Shape::tile_n - 1) / Shape::tile_n);
  CudaLaunch launch{queue};
  launch(simt::Shape{.x = blocks, .threads = Shape::threads, .shared_bytes = Shape::shared_bytes},
         linear_wgmma_tiles<Shape>, x, w, call);
}

using WgmmaLarge = WgmmaShape<256, 4, false>;
using WgmmaSegments = WgmmaShape<128, 4, true>;

}  // namespace chorus::cuda::inline SIMT_MEANING

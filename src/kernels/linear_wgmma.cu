#include "kernels/linear_wgmma.h"

#include <algorithm>
#include <array>
#include <random>
#include <vector>

#include "base/check.h"
#include "kernels/linear_wgmma_impl.h"

namespace chorus {
namespace cuda::inline SIMT_MEANING {

namespace {

// From the driver by name, so that nothing links to libcuda; null: not there.
decltype(&cuTensorMapEncodeTiled) find_encoder() {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found;
  const bool there = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault,
                                                      &found) == cudaSuccess &&
                     found == cudaDriverEntryPointSuccess;
  return there ? reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(function) : nullptr;
}

bool encode(CUtensorMap* map, const Bfloat16* data, std::int64_t rows, std::int64_t columns, std::int64_t stride,
            int box_rows) {
  static const auto encoder = find_encoder();
  const cuuint64_t sizes[] = {static_cast<cuuint64_t>(columns), static_cast<cuuint64_t>(rows)};
  const cuuint64_t strides[] = {static_cast<cuuint64_t>(stride) * 2};
  const cuuint32_t box[] = {64, static_cast<cuuint32_t>(box_rows)}, steps[] = {1, 1};
  return encoder != nullptr &&
         encoder(map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, const_cast<Bfloat16*>(data), sizes, strides, box, steps,
                 CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                 CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

// A map follows from these alone, whatever lies there.
struct MapKey {
  const Bfloat16* data = nullptr;
  std::int64_t rows = 0, columns = 0, stride = 0;
  int box_rows = 0;
  bool operator==(const MapKey&) const = default;

  std::size_t hash() const {
    std::uint64_t hash = reinterpret_cast<std::uintptr_t>(data);
    for (const std::int64_t value : {rows, columns, stride, std::int64_t{box_rows}}) {
      hash = (hash ^ static_cast<std::uint64_t>(value)) * 0x9e3779b97f4a7c15U;
      hash ^= hash >> 32;
    }
    return hash;
  }
};

}  // namespace

// The last maps made: those of the weights are the same in every step, and encoding one takes about as long as a
// launch.
bool make_tensor_map(CUtensorMap* map, const Bfloat16* data, std::int64_t rows, std::int64_t columns,
                     std::int64_t stride, int box_rows) {
  struct Entry {
    MapKey key;
    CUtensorMap map;
  };
  thread_local std::vector<Entry> entries(1024);
  const MapKey key{data, rows, columns, stride, box_rows};
  Entry& entry = entries[key.hash() % entries.size()];
  if (!(entry.key == key)) {
    entry.key = {};
    if (!encode(&entry.map, data, rows, columns, stride, box_rows)) return false;
    entry.key = key;
  }
  *map = entry.map;
  return true;
}

}  // namespace cuda::inline SIMT_MEANING

namespace {

template <int groups, int n, int stages, bool tree>
WgmmaWay way(const char* name) {
  using Shape = cuda::WgmmaShape<groups, n, stages, tree>;
  return {name, Shape::tile_m, n, tree ? 2 : 1, tree ? 8 : 1, cuda::launch_wgmma<Shape>};
}

// Microseconds by the larger of three: W read from memory; rounds of tiles, a stage of each bound by the bytes that
// come from the second-level cache or by the products. The rates are such that an H200's choices were the fastest ways,
// or nearly, at 33 to 16,384 rows (docs/cuda.md).
double expected_us(const CudaQueue& queue, const CudaLinear& call, const WgmmaWay& way) {
  constexpr double memory_bytes_per_us = 4.4e6, cycles_per_us = 1700, cache_bytes_per_cycle = 40;
  constexpr double products_per_cycle = 1500, cycles_between_tiles = 3000;
  const std::int64_t m_tiles = (call.m + way.tile_m - 1) / way.tile_m;
  const std::int64_t tiles = m_tiles * ((call.rows + way.tile_n - 1) / way.tile_n);
  const auto rounds = static_cast<double>((tiles + queue.processors - 1) / queue.processors);
  const double cache = (way.tile_m + way.tile_n) * 2 / cache_bytes_per_cycle;
  const double products = way.tile_m * way.tile_n / products_per_cycle;
  const double cycles = rounds * (call.columns * std::max(cache, products) + cycles_between_tiles);
  const double bytes = 2.0 * call.rows * call.columns;
  return std::max(cycles / cycles_per_us, bytes / memory_bytes_per_us);
}

struct Sample {
  std::int32_t m, rows, columns, segments;
  CudaLinearOutput output;
};

// What y holds after the product by `way`, or by linear_tiled if there is none; empty: something failed. The rest of
// `memory` is x and W.
std::vector<std::uint32_t> y_of(CudaQueue& queue, const Sample& sample, const WgmmaWay* way, std::byte* memory,
                                std::size_t y_bytes) {
  auto* x = reinterpret_cast<std::uint16_t*>(memory + y_bytes);
  CudaLinear call{x,           sample.columns, sample.m,       x + static_cast<std::size_t>(sample.m) * sample.columns,
                  sample.rows, sample.columns, sample.segments};
  call.bias = reinterpret_cast<const float*>(x);  // finite numbers
  call.ldy = sample.rows + 8;
  call.y = memory;
  call.output = sample.output;
  CudaLaunch launch{queue};
  launch.note(cudaMemsetAsync(memory, 0x3f, y_bytes, queue.stream));
  if (way != nullptr) {
    way->queue(queue, call);
  } else {
    cuda::launch_tiled<cuda::TiledMedium>(launch, call);
  }
  std::vector<std::uint32_t> y(y_bytes / 4);
  launch.note(cudaStreamSynchronize(queue.stream));
  launch.note(cudaMemcpy(y.data(), memory, y_bytes, cudaMemcpyDeviceToHost));
  if (queue.error != nullptr) y.clear();
  return y;
}

// Whether all ways for so many segments give linear_tiled's bits; three blocks walk through all tiles.
bool agrees(CudaQueue& queue, const Sample& sample) {
  const std::size_t y_bytes = (static_cast<std::size_t>(sample.m) * (sample.rows + 8) * 4 + 15) / 16 * 16;
  std::mt19937 generator(static_cast<std::uint32_t>(sample.m + sample.rows));
  std::vector<std::uint16_t> values(static_cast<std::size_t>(sample.m + sample.rows) * sample.columns);
  // Signs and mantissas at random, magnitudes over 2^8.
  for (std::uint16_t& value : values)
    value = static_cast<std::uint16_t>((generator() & 0x807fU) | (0x3b80U + (generator() & 7U) * 0x80U));
  std::byte* memory = nullptr;
  CudaQueue few = queue;
  few.processors = 3;
  CudaLaunch launch{few};
  launch.note(cudaMalloc(&memory, y_bytes + values.size() * 2));
  if (memory == nullptr) {
    queue.error = few.error;
    return false;
  }
  launch.note(cudaMemcpy(memory + y_bytes, values.data(), values.size() * 2, cudaMemcpyHostToDevice));
  const std::vector<std::uint32_t> expected = y_of(few, sample, nullptr, memory, y_bytes);
  bool equal = !expected.empty();
  for (const WgmmaWay& way : wgmma_ways()) {
    if (way.can(sample.segments)) equal = equal && y_of(few, sample, &way, memory, y_bytes) == expected;
  }
  cudaFree(memory);
  if (queue.error == nullptr) queue.error = few.error;
  return equal;
}

}  // namespace

std::span<const WgmmaWay> wgmma_ways() {
  // As many stages as fit: about 190 KB on their way to each processor.
  static const std::array<WgmmaWay, 9> ways = {
      way<2, 256, 4, false>("wgmma 128 x 256"),          way<2, 192, 4, false>("wgmma 128 x 192"),
      way<2, 128, 6, false>("wgmma 128 x 128"),          way<2, 64, 8, false>("wgmma 128 x 64"),
      way<1, 128, 8, false>("wgmma 64 x 128"),           way<1, 64, 12, false>("wgmma 64 x 64"),
      way<2, 128, 4, true>("wgmma 128 x 128, segments"), way<2, 64, 6, true>("wgmma 128 x 64, segments"),
      way<1, 64, 11, true>("wgmma 64 x 64, segments")};
  return ways;
}

bool wgmma_can(const CudaQueue& queue, const CudaLinear& call) {
  return queue.capability == 90 && call.columns % (64 * call.segments) == 0 && call.ldx % 8 == 0;
}

const WgmmaWay& wgmma_way(const CudaQueue& queue, const CudaLinear& call) {
  const WgmmaWay* best = nullptr;
  for (const WgmmaWay& way : wgmma_ways()) {
    if (!way.can(call.segments)) continue;
    if (best == nullptr || expected_us(queue, call, way) < expected_us(queue, call, *best)) best = &way;
  }
  return *best;
}

void linear_wgmma(CudaQueue& queue, const CudaLinear& call) {
  CHECK(wgmma_can(queue, call), "W {} x {} in {} segments on capability {}", call.rows, call.columns, call.segments,
        queue.capability);
  if (call.m > 0 && call.rows > 0) wgmma_way(queue, call).queue(queue, call);
}

bool wgmma_agrees(CudaQueue& queue) {
  if (queue.capability != 90) return false;
  using enum CudaLinearOutput;
  for (const CudaLinearOutput output : {store, accumulate, round, gate, gelu_gate}) {
    if (!agrees(queue, {200, 520, 1024, 1, output}) || !agrees(queue, {300, 264, 1024, 8, output})) return false;
  }
  return agrees(queue, {65, 128, 512, 2, store}) && agrees(queue, {65, 72, 512, 4, store});
}

}  // namespace chorus

#include "kernels/linear_wgmma.h"

#include <algorithm>
#include <random>
#include <vector>

#include "base/check.h"
#include "kernels/linear_wgmma_impl.h"

namespace chorus {
namespace cuda::inline SIMT_MEANING {

bool make_tensor_map(CUtensorMap* map, const Bfloat16* data, std::int64_t rows, std::int64_t columns,
                     std::int64_t stride, int box_rows) {
  // From the driver by name, so that nothing links to libcuda.
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found;
  if (cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault, &found) !=
          cudaSuccess ||
      found != cudaDriverEntryPointSuccess) {
    return false;
  }
  const cuuint64_t sizes[] = {static_cast<cuuint64_t>(columns), static_cast<cuuint64_t>(rows)};
  const cuuint64_t strides[] = {static_cast<cuuint64_t>(stride) * 2};
  const cuuint32_t box[] = {64, static_cast<cuuint32_t>(box_rows)}, steps[] = {1, 1};
  return reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(function)(
             map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, const_cast<Bfloat16*>(data), sizes, strides, box, steps,
             CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
             CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

}  // namespace cuda::inline SIMT_MEANING

namespace {

// Both kernels' y of one random product; false: their bits differ, or something failed.
bool agrees(CudaQueue& queue, std::int32_t m, std::int32_t rows, std::int32_t columns, std::int32_t segments) {
  const std::size_t x_count = static_cast<std::size_t>(m) * columns, w_count = static_cast<std::size_t>(rows) * columns;
  const std::size_t y_count = static_cast<std::size_t>(m) * rows;
  std::mt19937 generator(static_cast<std::uint32_t>(m + rows));
  std::vector<std::uint16_t> values(x_count + w_count);
  // Signs and mantissas at random, magnitudes over 2^8.
  for (std::uint16_t& value : values)
    value = static_cast<std::uint16_t>((generator() & 0x807fU) | (0x3b80U + (generator() & 7U) * 0x80U));
  std::byte* memory = nullptr;
  CudaLaunch launch{queue};
  launch.note(cudaMalloc(&memory, values.size() * 2 + y_count * 8));
  if (memory == nullptr) return false;
  launch.note(cudaMemcpy(memory, values.data(), values.size() * 2, cudaMemcpyHostToDevice));
  auto* x = reinterpret_cast<std::uint16_t*>(memory);
  auto* y = reinterpret_cast<float*>(memory + values.size() * 2);
  CudaLinear call{x, columns, m, x + x_count, rows, columns, segments};
  call.ldy = rows;
  call.y = y;
  cuda::launch_tiled<cuda::TiledMedium>(launch, call);
  call.y = y + y_count;
  linear_wgmma(queue, call);
  std::vector<std::uint32_t> sums(2 * y_count);
  launch.note(cudaStreamSynchronize(queue.stream));
  launch.note(cudaMemcpy(sums.data(), y, y_count * 8, cudaMemcpyDeviceToHost));
  cudaFree(memory);
  return queue.error == nullptr && std::equal(sums.begin(), sums.begin() + static_cast<std::ptrdiff_t>(y_count),
                                              sums.begin() + static_cast<std::ptrdiff_t>(y_count));
}

}  // namespace

bool wgmma_can(const CudaQueue& queue, const CudaLinear& call) {
  return queue.capability == 90 && call.columns % (64 * call.segments) == 0 && call.ldx % 8 == 0;
}

void linear_wgmma(CudaQueue& queue, const CudaLinear& call) {
  CHECK(wgmma_can(queue, call), "W {} x {} in {} segments on capability {}", call.rows, call.columns, call.segments,
        queue.capability);
  if (call.segments > 1) return cuda::launch_wgmma<cuda::WgmmaSegments>(queue, call);
  cuda::launch_wgmma<cuda::WgmmaLarge>(queue, call);
}

bool wgmma_agrees(CudaQueue& queue) {
  return queue.capability == 90 && agrees(queue, 200, 512, 1024, 1) && agrees(queue, 300, 264, 2048, 8) &&
         agrees(queue, 65, 128, 512, 2);
}

}  // namespace chorus

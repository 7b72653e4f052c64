#include "base/check.h"
#include "kernels/cuda_launch.h"
#include "kernels/linear_cuda_impl.h"
#if defined(__CUDACC__)
#include "kernels/linear_wgmma.h"
#endif

namespace chorus {
namespace {

[[maybe_unused]] constexpr std::int32_t wgmma_rows_min = 33;

// Whether the product was queued by wgmma.
bool try_wgmma([[maybe_unused]] CudaQueue& queue, [[maybe_unused]] const CudaLinear& call) {
#if defined(__CUDACC__)
  // Of fewer rows linear_stream reads no byte twice, and 64 is the least that wgmma multiplies.
  if (!queue.wgmma || call.m < wgmma_rows_min || !wgmma_can(queue, call)) return false;
  linear_wgmma(queue, call);
  return true;
#else
  return false;
#endif
}

}  // namespace

void linear_cuda(CudaQueue& queue, const CudaLinear& call) {
  const int segments = call.segments;
  CHECK(call.rows % 8 == 0 && call.ldx % 8 == 0 && call.ldy % 4 == 0, "W {} x {}, ldx {}, ldy {}", call.rows,
        call.columns, call.ldx, call.ldy);
  for (const void* data :
       {static_cast<const void*>(call.x), static_cast<const void*>(call.w), static_cast<const void*>(call.y)}) {
    CHECK(reinterpret_cast<std::uintptr_t>(data) % 16 == 0, "x, W and y must be aligned to 16 bytes: {}", data);
  }
  CHECK((segments == 1 || segments == 2 || segments == 4 || segments == 8) && call.columns % (8 * segments) == 0,
        "{} columns in {} segments", call.columns, segments);
  if (try_wgmma(queue, call)) return;
  CudaLaunch launch{queue};
  cuda::launch_linear(launch, call, {queue.processors, queue.shared_bytes_max});
}

}  // namespace chorus

#include "base/check.h"
#include "kernels/cuda_launch.h"
#include "kernels/linear_cuda_impl.h"
#include "kernels/linear_wgmma.h"

namespace chorus {
namespace {

constexpr std::int32_t wgmma_rows_min = 256;

}  // namespace

void linear_cuda(CudaQueue& queue, const CudaLinear& call) {
  const int segments = call.segments;
  CHECK(call.rows % 8 == 0 && call.ldx % 8 == 0 && call.ldy % 2 == 0, "W {} x {}, ldx {}, ldy {}", call.rows,
        call.columns, call.ldx, call.ldy);
  CHECK((segments == 1 || segments == 2 || segments == 4 || segments == 8) && call.columns % (8 * segments) == 0,
        "{} columns in {} segments", call.columns, segments);
  // Below some hundred rows the tiles of mma fill the processors better.
  if (queue.wgmma && call.m >= wgmma_rows_min && wgmma_can(queue, call)) return linear_wgmma(queue, call);
  CudaLaunch launch{queue};
  cuda::launch_linear(launch, call, {queue.processors, queue.shared_bytes_max});
}

}  // namespace chorus

#include "base/check.h"
#include "kernels/cuda_launch.h"
#include "kernels/linear_cuda_impl.h"

namespace chorus {

void linear_cuda(CudaQueue& queue, const CudaLinear& call) {
  const int segments = call.segments;
  CHECK(call.rows % 8 == 0 && call.ldx % 8 == 0 && call.ldy % 2 == 0, "W {} x {}, ldx {}, ldy {}", call.rows,
        call.columns, call.ldx, call.ldy);
  CHECK((segments == 1 || segments == 2 || segments == 4 || segments == 8) && call.columns % (8 * segments) == 0,
        "{} columns in {} segments", call.columns, segments);
  CudaLaunch launch{queue};
  cuda::launch_linear(launch, call, queue.processors);
}

}  // namespace chorus

#include "base/check.h"
#include "kernels/cuda_launch.h"
#include "kernels/elementwise_cuda_impl.h"

namespace chorus {

void rms_norm_cuda(CudaQueue& queue, const CudaRmsNorm& call) {
  CHECK(call.ldx >= call.width && call.ldo >= call.width, "width {}, ldx {}, ldo {}", call.width, call.ldx, call.ldo);
  CudaLaunch launch{queue};
  cuda::launch_rms_norm(launch, call);
}

void rotary_write_cuda(CudaQueue& queue, const CudaRotaryWrite& call) {
  CHECK(call.rotary_dim <= call.head_dim && call.rotary_dim % 2 == 0, "rotary dimension {} of {}", call.rotary_dim,
        call.head_dim);
  CudaLaunch launch{queue};
  cuda::launch_rotary_write(launch, call);
}

void argmax_cuda(CudaQueue& queue, const CudaArgmax& call) {
  CHECK(call.ld >= call.width, "width {}, stride {}", call.width, call.ld);
  CudaLaunch launch{queue};
  cuda::launch_argmax(launch, call);
}

}  // namespace chorus

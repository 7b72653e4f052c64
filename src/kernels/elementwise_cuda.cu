#include "base/check.h"
#include "kernels/cuda_launch.h"
#include "kernels/elementwise_cuda_impl.h"

namespace chorus {

void norm_cuda(CudaQueue& queue, const CudaNorm& call) {
  const std::int64_t width = std::int64_t{call.width} * call.heads;
  CHECK(call.ldx >= width && call.ldo >= width, "width {}, ldx {}, ldo {}", width, call.ldx, call.ldo);
  CudaLaunch launch{queue};
  cuda::launch_norm(launch, call);
}

void rotary_cuda(CudaQueue& queue, const CudaRotary& call) {
  CHECK(call.rotary_dim <= call.head_dim && call.rotary_dim % 2 == 0, "rotary dimension {} of {}", call.rotary_dim,
        call.head_dim);
  CudaLaunch launch{queue};
  cuda::launch_rotary(launch, call);
}

void gather_cuda(CudaQueue& queue, const CudaGather& call) {
  CHECK(call.ldf >= call.width && call.ldo >= call.width, "width {}, ldf {}, ldo {}", call.width, call.ldf, call.ldo);
  CudaLaunch launch{queue};
  cuda::launch_gather(launch, call);
}

void elements_cuda(CudaQueue& queue, const CudaElements& call) {
  CHECK(call.ldy >= call.width, "width {}, ldy {}", call.width, call.ldy);
  CudaLaunch launch{queue};
  cuda::launch_elements(launch, call);
}

void rotary_write_cuda(CudaQueue& queue, const CudaRotaryWrite& call) {
  CHECK(call.rotary_dim <= call.head_dim && call.rotary_dim % 2 == 0 && call.head_dim % 2 == 0,
        "rotary dimension {} of {}", call.rotary_dim, call.head_dim);
  CHECK((call.block_size & (call.block_size - 1)) == 0, "blocks of {}: not a power of two", call.block_size);
  CudaLaunch launch{queue};
  cuda::launch_rotary_write(launch, call);
}

void argmax_cuda(CudaQueue& queue, const CudaArgmax& call) {
  CHECK(call.ld >= call.width, "width {}, stride {}", call.width, call.ld);
  CudaLaunch launch{queue};
  cuda::launch_argmax(launch, call);
}

}  // namespace chorus

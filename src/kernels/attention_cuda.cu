#include "base/check.h"
#include "kernels/attention_split_cuda_impl.h"
#include "kernels/cuda_launch.h"

namespace chorus {

void attention_cuda(CudaQueue& queue, const CudaAttention& call) {
  CHECK(call.head_dim % 8 == 0 && call.head_dim > 0 && call.head_dim <= 128, "head dimension {}", call.head_dim);
  CHECK(call.heads % call.kv_heads == 0 && call.heads / call.kv_heads <= cuda::attention_warp_rows &&
            call.block_size >= 16 && (call.block_size & (call.block_size - 1)) == 0,
        "{} heads, {} KV heads, blocks of {}", call.heads, call.kv_heads, call.block_size);
  CHECK(call.ldq % 8 == 0 && call.ldo % 2 == 0, "ldq {}, ldo {}", call.ldq, call.ldo);
  CHECK(call.rows_max > 1 || call.sequence_count == 0 || call.states != nullptr, "no memory for states");
  CudaLaunch launch{queue};
  cuda::launch_attention(launch, call, queue.processors);
}

}  // namespace chorus

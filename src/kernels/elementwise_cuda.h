// The row-wise operations on a GPU (elementwise.h says what they compute). A row is computed by the same operations in
// the same order whatever is beside it. Each queues its work and returns at once; pointers are the device's.
#pragma once

#include <cstdint>

#include "kernels/cuda_queue.h"

namespace chorus {

// out = x / sqrt(mean(x^2) + eps) * weight in bfloat16: what the next product reads. The square sum: 256 partial sums
// (sum i takes elements i, i + 256, ...), combined by a fixed tree. x: [m, width] float32.
struct CudaRmsNorm {
  const float* x = nullptr;
  std::int64_t ldx = 0;
  std::int32_t m = 0, width = 0;
  const float* weight = nullptr;
  float eps = 0;
  std::uint16_t* out = nullptr;
  std::int64_t ldo = 0;
};
void rms_norm_cuda(CudaQueue& queue, const CudaRmsNorm& call);

// Turns the queries and keys of merged projections by their positions (rotary() of elementwise.h, with its bits), gives
// the queries in bfloat16 and writes keys and values in bfloat16 to the KV memory (attention_cuda.h has its layout).
struct CudaRotaryWrite {
  const float* qkv = nullptr;  // [m, (heads + 2 * kv_heads) * head_dim]: queries, keys, values; stride ld
  std::int64_t ld = 0;
  std::int32_t m = 0, heads = 0, kv_heads = 0, head_dim = 0, rotary_dim = 0;
  const std::int32_t* positions = nullptr;  // [m]
  const float* cos_sin = nullptr;           // [positions, rotary_dim]
  std::uint16_t* q = nullptr;               // [m, heads * head_dim]
  std::uint16_t* cache = nullptr;           // of this layer
  const std::int64_t* slots = nullptr;      // [m]: block * block_size + place in the block; -1: not written
  std::int32_t block_size = 16;
};
void rotary_write_cuda(CudaQueue& queue, const CudaRotaryWrite& call);

// out[i] = the lowest index of row i's largest logit; -1: the row has a NaN or +inf, or nothing above
// -inf (SampleOutput::not_a_number).
struct CudaArgmax {
  const float* logits = nullptr;  // [m, width], stride ld
  std::int64_t ld = 0;
  std::int32_t m = 0, width = 0;
  std::int32_t* out = nullptr;
};
void argmax_cuda(CudaQueue& queue, const CudaArgmax& call);

}  // namespace chorus

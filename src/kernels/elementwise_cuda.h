// The row-wise operations on a GPU (elementwise.h says what they compute). A row is computed by the same operations in
// the same order whatever is beside it. Each queues its work and returns at once; pointers are the device's.
#pragma once

#include <cstdint>

#include "kernels/cuda_queue.h"

namespace chorus {

// out = x / sqrt(mean(x^2) + eps) * weight, of each of the `heads` parts of a row; or the layer norm. Sums:
// 256 partial sums (sum i takes elements i, i + 256, ...), combined by a fixed tree. x: [m, heads * width] float32.
struct CudaNorm {
  const float* x = nullptr;
  std::int64_t ldx = 0;
  std::int32_t m = 0, width = 0;
  const float* weight = nullptr;  // [width]
  float eps = 0;
  std::uint16_t* out = nullptr;  // bfloat16: what the next product reads
  std::int64_t ldo = 0;
  float* out_float = nullptr;  // not null: instead of out; may be x
  std::int32_t heads = 1;
  const float* bias = nullptr;  // [width], of a layer norm; may be null
  bool is_layer_norm = false;
};
void norm_cuda(CudaQueue& queue, const CudaNorm& call);

// In place: the first `heads` heads of each row turn (rotary() of elementwise.h, with its bits).
struct CudaRotary {
  float* x = nullptr;  // [m, heads * head_dim], stride ld
  std::int64_t ld = 0;
  std::int32_t m = 0, heads = 0, head_dim = 0, rotary_dim = 0;
  const std::int32_t* positions = nullptr;  // [m]
  const float* cos_sin = nullptr;           // [positions, rotary_dim]
};
void rotary_cuda(CudaQueue& queue, const CudaRotary& call);

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
  std::int32_t block_size = 16;             // a power of two
  std::int32_t block_size_log2 = 0;         // the launcher's
};
void rotary_write_cuda(CudaQueue& queue, const CudaRotaryWrite& call);

// out[i] = row index_of[i] - first of `rows` rows of `from`; zeros where there is none. from: bfloat16 or float32.
struct CudaGather {
  const std::uint16_t* from = nullptr;
  const float* from_float = nullptr;  // not null: instead of from
  std::int64_t ldf = 0;
  std::int64_t first = 0, rows = 0;
  const std::int32_t* index_of = nullptr;  // [m]
  std::int32_t m = 0, width = 0;
  float* out = nullptr;  // [m, width], stride ldo
  std::int64_t ldo = 0;
};
void gather_cuda(CudaQueue& queue, const CudaGather& call);

enum class CudaPointwise : std::uint8_t {
  zero,   // y = 0
  scale,  // y *= factor
  add,    // y += factor * x
  round,  // y_rounded = x in bfloat16
  gelu_tanh,
  softcap,  // y = factor tanh(y / factor)
};
struct CudaElements {
  CudaPointwise what = CudaPointwise::zero;
  std::int32_t m = 0, width = 0;
  const float* x = nullptr;
  std::int64_t ldx = 0;
  float factor = 1.0F;
  float* y = nullptr;
  std::uint16_t* y_rounded = nullptr;
  std::int64_t ldy = 0;
};
void elements_cuda(CudaQueue& queue, const CudaElements& call);

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

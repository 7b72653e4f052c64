// y = x W^T on a GPU, in the profile cuda-sm90: x and W in bfloat16, sums in float32.
//
// Numerics. The rule of linear.h with this order inside a segment: the columns of a segment go in steps of 16, in
// ascending order, each step one mma_bf16 (simt/simt.h) onto the sum so far; a step beyond the segment's end has zeros.
// So an output is a function of its row of x and its row of W alone, whatever kernel computes it: there are several,
// chosen from m and the shape of W, and their bits are equal (linear_cuda_test.cc).
#pragma once

#include <cstdint>

#include "kernels/cuda_queue.h"

namespace chorus {

enum class CudaLinearOutput : std::uint8_t {
  store,       // y float32 = sum
  accumulate,  // y float32 += sum: the residual stream
  round,       // y bfloat16 = sum
  gate,        // y bfloat16 [m, rows / 2]: silu(sum of row 2 i) * (sum of row 2 i + 1); gate and up lie in turn
  gelu_gate,   // the same with gelu_tanh
};

// All pointers are the device's and aligned to 16 bytes. W: [rows, columns], row-major as in the checkpoint.
struct CudaLinear {
  const std::uint16_t* x = nullptr;  // [m, columns], stride ldx
  std::int64_t ldx = 0;              // a multiple of 8
  std::int32_t m = 0;
  const std::uint16_t* w = nullptr;
  std::int32_t rows = 0;     // a multiple of 8
  std::int32_t columns = 0;  // columns / segments is a multiple of 8
  std::int32_t segments = 1;
  const float* bias = nullptr;  // [rows]
  void* y = nullptr;            // stride ldy, a multiple of 4
  std::int64_t ldy = 0;
  CudaLinearOutput output = CudaLinearOutput::store;
};

// Queues the product; returns at once.
void linear_cuda(CudaQueue& queue, const CudaLinear& call);

}  // namespace chorus

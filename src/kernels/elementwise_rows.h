// One row of each operation of elementwise.h, as an instruction set offers it. Private to elementwise*.cc and
// linear.cc.
#pragma once

#include <cstdint>

#include "kernels/isa.h"

namespace chorus {

struct ElementwiseKernels {
  void (*rms_norm)(const float* x, std::int64_t width, const float* weight, float eps, float* out) = nullptr;
  void (*layer_norm)(const float* x, std::int64_t width, const float* weight, const float* bias, float eps,
                     float* out) = nullptr;
  // One head; half: rotary_dim / 2.
  void (*rotary)(float* x, int half, const float* cosines, const float* sines) = nullptr;
  void (*silu_mul)(const float* gate, const float* up, std::int64_t width, float* out) = nullptr;
};

const ElementwiseKernels& elementwise_kernels(Isa isa);

// Each in the file of its instruction set; call only where available_isas() has it.
const ElementwiseKernels& elementwise_kernels_scalar();
const ElementwiseKernels& elementwise_kernels_avx2();
const ElementwiseKernels& elementwise_kernels_avx512();

}  // namespace chorus

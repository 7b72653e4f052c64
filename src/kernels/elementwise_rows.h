// One row of each operation of elementwise.h, as an instruction set offers it. Private to elementwise*.cc and
// linear.cc.
#pragma once

#include <cstdint>

#include "kernels/elementwise.h"
#include "kernels/isa.h"

namespace chorus {

// out = activation(gate) * up.
using GatedRow = void (*)(const float* gate, const float* up, std::int64_t width, float* out);

struct ElementwiseKernels {
  void (*rms_norm)(const float* x, std::int64_t width, const float* weight, float eps, float* out) = nullptr;
  void (*layer_norm)(const float* x, std::int64_t width, const float* weight, const float* bias, float eps,
                     float* out) = nullptr;
  // One head; half: rotary_dim / 2.
  void (*rotary)(float* x, int half, const float* cosines, const float* sines) = nullptr;
  GatedRow silu_mul = nullptr, gelu_mul = nullptr, clamped_swish_mul = nullptr;
  void (*gelu)(float* x, std::int64_t width) = nullptr;
  void (*softcap)(float cap, float* x, std::int64_t width) = nullptr;
  void (*add_gated)(float gate, const float* x, std::int64_t width, float* y) = nullptr;

  GatedRow gated(Activation activation) const {
    return activation == Activation::silu        ? silu_mul
           : activation == Activation::gelu_tanh ? gelu_mul
                                                 : clamped_swish_mul;
  }
};

const ElementwiseKernels& elementwise_kernels(Isa isa);

// Each in the file of its instruction set; call only where available_isas() has it.
const ElementwiseKernels& elementwise_kernels_scalar();
const ElementwiseKernels& elementwise_kernels_avx2();
const ElementwiseKernels& elementwise_kernels_avx512();

}  // namespace chorus

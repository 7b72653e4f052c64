// silu and gelu_tanh on a GPU: device code, for nvcc and for the emulation. Private to linear_* and elementwise_cuda*.
#pragma once

#include "simt/simt.h"

namespace chorus::cuda::inline SIMT_MEANING {

// p where the activation of x is x / (1 + e^p). Of gelu_tanh: -2 sqrt(2 / pi) (x + 0.044715 x^3).
template <bool gelu>
SIMT_DEVICE float gate_power(float x) {
  if constexpr (gelu) return -1.5957691216057308F * simt::multiply_add(0.044715F, x * x * x, x);
  return 0.0F - x;
}
// silu or gelu_tanh.
template <bool gelu>
SIMT_DEVICE float activated(float x) {
  return x / (1.0F + simt::exponential(gate_power<gelu>(x)));
}
// The same of several values, without a branch for each where all are in the range of simt::quotient. There e^power and
// the quotient are far from overflow and from subnormal numbers.
template <bool gelu, int count>
SIMT_DEVICE void activate(float (&values)[count]) {
  float results[count];
  bool usual = true;
  SIMT_UNROLL
  for (int i = 0; i < count; ++i) {
    const float power = gate_power<gelu>(values[i]);
    usual = usual && simt::magnitude(power) <= 64.0F && simt::magnitude(values[i]) >= 0x1p-64F;
    results[i] = simt::quotient(values[i], 1.0F + simt::exponential_within(power));
  }
  if (!usual) {
    SIMT_UNROLL
    for (int i = 0; i < count; ++i) results[i] = activated<gelu>(values[i]);
  }
  SIMT_UNROLL
  for (int i = 0; i < count; ++i) values[i] = results[i];
}

}  // namespace chorus::cuda::inline SIMT_MEANING

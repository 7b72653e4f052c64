#include <immintrin.h>

#include "kernels/limits_loops.h"

namespace chorus {

// 16 accumulators: more than the latency times the instructions a cycle.
double multiply_add_avx512(std::int64_t steps) {
  __m512 sums[16], factor = _mm512_set1_ps(0.5F);
#pragma GCC unroll 16
  for (auto& sum : sums) sum = factor;
  for (std::int64_t step = 0; step < steps; ++step) {
    // Assembly, so that the compiler neither drops nor merges one.
#pragma GCC unroll 16
    for (auto& sum : sums) __asm__ volatile("vfmadd231ps %1, %1, %0" : "+v"(sum) : "v"(factor));
  }
  return 2.0 * 16 * 16 * static_cast<double>(steps);
}

}  // namespace chorus

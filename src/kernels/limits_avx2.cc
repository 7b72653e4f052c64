#include <immintrin.h>

#include "kernels/limits_loops.h"

namespace chorus {

// 12 accumulators: more than the latency times the instructions a cycle.
double multiply_add_avx2(std::int64_t steps) {
  __m256 sums[12], factor = _mm256_set1_ps(0.5F);
#pragma GCC unroll 12
  for (auto& sum : sums) sum = factor;
  for (std::int64_t step = 0; step < steps; ++step) {
    // Assembly, so that the compiler neither drops nor merges one.
#pragma GCC unroll 12
    for (auto& sum : sums) __asm__ volatile("vfmadd231ps %1, %1, %0" : "+x"(sum) : "x"(factor));
  }
  return 2.0 * 8 * 12 * static_cast<double>(steps);
}

}  // namespace chorus

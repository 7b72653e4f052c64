#include <immintrin.h>

#include "kernels/linear_fma.h"

namespace chorus {
namespace {

struct Avx2 : FloatVector {
  // 6 rows x 2 vectors of a panel are 12 accumulators of 16 registers; two weights and one x are the rest.
  static constexpr int block_rows = 6;
  static constexpr int panels_at_once(int rows) { return rows == 1 ? 4 : rows <= 3 ? 2 : 1; }

  static void widen(const Bfloat16* p, Register* low, Register* high) {
    const __m256i words = _mm256_load_si256(reinterpret_cast<const __m256i*>(p));
    *low = _mm256_castsi256_ps(_mm256_slli_epi32(words, 16));
    *high = _mm256_castsi256_ps(_mm256_and_si256(words, _mm256_set1_epi32(static_cast<int>(0xffff0000U))));
  }
};

}  // namespace

const LinearKernel& linear_kernel_avx2() {
  return linear_kernel_fma<Avx2>;
}

}  // namespace chorus

#include <immintrin.h>

#include "kernels/linear_fma.h"

namespace chorus {
namespace {

struct Avx512 : FloatVector {
  // 14 rows x 2 vectors of a panel are 28 accumulators; with the two weights, one x and the mask of widen() all 32
  // registers.
  static constexpr int block_rows = 14;
  static constexpr int panels_at_once(int rows) { return rows <= 3 ? 4 : rows <= 4 ? 3 : rows <= 7 ? 2 : 1; }

  static void widen(const Bfloat16* p, Register* low, Register* high) {
    const __m512i words = _mm512_load_si512(p);
    *low = _mm512_castsi512_ps(_mm512_slli_epi32(words, 16));
    *high = _mm512_castsi512_ps(_mm512_and_si512(words, _mm512_set1_epi32(static_cast<int>(0xffff0000U))));
  }
};

}  // namespace

const LinearKernel& linear_kernel_avx512() {
  return linear_kernel_fma<Avx512>;
}

}  // namespace chorus

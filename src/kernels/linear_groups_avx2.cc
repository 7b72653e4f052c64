#include <immintrin.h>

#include "kernels/linear_groups_vector.h"

namespace chorus {
namespace {

std::int32_t sum_of(__m256i eight) {
  __m128i four = _mm_add_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
  four = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4e));
  return _mm_cvtsi128_si32(_mm_add_epi32(four, _mm_shuffle_epi32(four, 0xb1)));
}
std::int32_t largest_of(__m256i eight) {
  __m128i four = _mm_max_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
  four = _mm_max_epi32(four, _mm_shuffle_epi32(four, 0x4e));
  return _mm_cvtsi128_si32(_mm_max_epi32(four, _mm_shuffle_epi32(four, 0xb1)));
}

struct Avx2 : FloatVector {
  // int8: of 32 bits. int4: of 16 bits; two products of a group's 8 are at most 8 * 2 * 15 * 127 = 30480.
  using Sum = __m256i;
  struct Weights {
    __m256i codes, magnitudes;
  };
  static constexpr int rows_at_once = 2;
  using FloatVector::add;

  static Register load_half(const std::byte* p) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }

  template <LinearFormat::Kind kind>
  static Weights unpack(const std::byte* line, bool upper) {
    const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(line));
    if constexpr (kind == LinearFormat::int8) return {bytes, _mm256_abs_epi8(bytes)};
    const __m256i codes = _mm256_and_si256(upper ? _mm256_srli_epi16(bytes, 4) : bytes, _mm256_set1_epi8(15));
    return {codes, codes};
  }
  static __m256i quad(const std::int8_t* codes) {
    std::int32_t four;
    __builtin_memcpy(&four, codes, 4);
    return _mm256_set1_epi32(four);
  }
  template <LinearFormat::Kind kind>
  static Sum start(std::int32_t) {
    return _mm256_setzero_si256();
  }
  // VPMADDUBSW wants one side unsigned: |w| (128 too), with w's sign given to x. Two products are at most
  // 2 * 128 * 127 = 32512.
  template <LinearFormat::Kind kind>
  static void add(Sum* sum, const Weights& weights, __m256i x) {
    if constexpr (kind == LinearFormat::int8) {
      const __m256i pairs = _mm256_maddubs_epi16(weights.magnitudes, _mm256_sign_epi8(x, weights.codes));
      *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
    } else {
      *sum = _mm256_add_epi16(*sum, _mm256_maddubs_epi16(weights.codes, x));
    }
  }
  template <LinearFormat::Kind kind>
  static Register finish(Sum sum, std::int32_t x_sum) {
    if constexpr (kind == LinearFormat::int8) return _mm256_cvtepi32_ps(sum);
    const __m256i fours = _mm256_madd_epi16(sum, _mm256_set1_epi16(1));
    return _mm256_cvtepi32_ps(_mm256_sub_epi32(fours, _mm256_set1_epi32(code_offset(kind) * x_sum)));
  }

  struct Quantise {
    static void group(const float* values, std::int8_t* codes, float* scale, std::int32_t* sum) {
      const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
      __m256i bits = _mm256_setzero_si256();
      for (std::int64_t i = 0; i < 4; ++i) {
        bits = _mm256_max_epi32(bits, _mm256_and_si256(_mm256_castps_si256(load(values + 8 * i)), magnitude));
      }
      const std::int32_t largest_bits = largest_of(bits);
      const float largest = __builtin_bit_cast(float, largest_bits);
      if (largest_bits >= 0x7f800000 || largest < smallest_group) {
        *scale = largest_bits >= 0x7f800000 ? __builtin_nanf("") : 0.0F;
        *sum = 0;
        return _mm256_storeu_si256(reinterpret_cast<__m256i*>(codes), _mm256_setzero_si256());
      }
      *scale = largest / 127;
      const __m256 inverse = _mm256_set1_ps(127 / largest);
      __m256i q[4];
      for (std::int64_t i = 0; i < 4; ++i) q[i] = _mm256_cvtps_epi32(multiply(load(values + 8 * i), inverse));
      *sum = sum_of(_mm256_add_epi32(_mm256_add_epi32(q[0], q[1]), _mm256_add_epi32(q[2], q[3])));
      // Packing works on each half of 128 bits by itself: fours of 0, 4, 8, .. then 1, 5, ..
      const __m256i bytes = _mm256_packs_epi16(_mm256_packs_epi32(q[0], q[1]), _mm256_packs_epi32(q[2], q[3]));
      const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(codes), _mm256_permutevar8x32_epi32(bytes, order));
    }
  };
};

}  // namespace

const LinearKernel& group_kernel_avx2() {
  return linear_kernel_groups<Avx2>;
}

}  // namespace chorus

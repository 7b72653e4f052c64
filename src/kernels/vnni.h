// AVX-512 with VNNI, as linear_groups_vector.h and linear_groups_amx.cc want it. Included only by *_vnni.cc and
// *_amx.cc.
#pragma once

#include <immintrin.h>

#include "kernels/linear_groups.h"
#include "kernels/linear_vector.h"

namespace chorus {
namespace {

struct Vnni : FloatVector {
  using Sum = __m512i;
  static constexpr int rows_at_once = 4;
  using FloatVector::add;

  static Register load_half(const std::byte* p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }

  // VPDPBUSD takes W as unsigned: int8 with 128 added.
  template <LinearFormat::Kind kind>
  static __m512i unpack(const std::byte* line, bool upper) {
    const __m512i bytes = _mm512_loadu_si512(line);
    if constexpr (kind == LinearFormat::int8) return _mm512_xor_si512(bytes, _mm512_set1_epi8(-128));
    return _mm512_and_si512(upper ? _mm512_srli_epi16(bytes, 4) : bytes, _mm512_set1_epi8(15));
  }
  static __m512i quad(const std::int8_t* codes) {
    std::int32_t four;
    __builtin_memcpy(&four, codes, 4);
    return _mm512_set1_epi32(four);
  }
  template <LinearFormat::Kind kind>
  static Sum start(std::int32_t sum) {
    return _mm512_set1_epi32(-code_offset(kind) * sum);
  }
  template <LinearFormat::Kind kind>
  static void add(Sum* sum, __m512i weights, __m512i x) {
    *sum = _mm512_dpbusd_epi32(*sum, weights, x);
  }
  template <LinearFormat::Kind kind>
  static Register finish(Sum sum, std::int32_t) {
    return _mm512_cvtepi32_ps(sum);
  }

  struct Quantise {
    static void group(const float* values, std::int8_t* codes, float* scale, std::int32_t* sum) {
      const __m512 low = _mm512_loadu_ps(values), high = _mm512_loadu_ps(values + 16);
      const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
      const __m512i bits = _mm512_max_epi32(_mm512_and_si512(_mm512_castps_si512(low), magnitude),
                                            _mm512_and_si512(_mm512_castps_si512(high), magnitude));
      const std::int32_t largest_bits = _mm512_reduce_max_epi32(bits);
      const float largest = __builtin_bit_cast(float, largest_bits);
      if (largest_bits >= 0x7f800000 || largest < smallest_group) {
        *scale = largest_bits >= 0x7f800000 ? __builtin_nanf("") : 0.0F;
        *sum = 0;
        return _mm256_storeu_si256(reinterpret_cast<__m256i*>(codes), _mm256_setzero_si256());
      }
      *scale = largest / 127;
      const __m512 inverse = _mm512_set1_ps(127 / largest);
      const __m512i a = _mm512_cvtps_epi32(_mm512_mul_ps(low, inverse));
      const __m512i b = _mm512_cvtps_epi32(_mm512_mul_ps(high, inverse));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(codes), _mm512_cvtepi32_epi8(a));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(codes + 16), _mm512_cvtepi32_epi8(b));
      *sum = _mm512_reduce_add_epi32(_mm512_add_epi32(a, b));
    }
  };
};

}  // namespace
}  // namespace chorus

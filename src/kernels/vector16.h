// Sixteen float32 lanes, the same operations in the same order in every instruction set: a kernel written over Vector16
// is compiled once an instruction set (files named *_scalar.cc, *_avx2.cc, *_avx512.cc) and gives the same bits in AVX2
// and AVX-512; the scalar build rounds the product of a multiply-add, which the others fuse.
//
// Only for those files. Everything lives in a namespace named after the instruction set, and uses no inline function of
// the standard library or of other rooms: the linker keeps one copy of such a function, and it might be one with
// instructions that this processor lacks.
#pragma once

#include <cstdint>

#if defined(__AVX512F__) || defined(__AVX2__)
// GCC 12 takes its own _mm512_undefined_ps for a use of an uninitialised value (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
#define CHORUS_VECTOR_NAMESPACE vector_avx512
#elif defined(__AVX2__)
#define CHORUS_VECTOR_NAMESPACE vector_avx2
#else
#define CHORUS_VECTOR_NAMESPACE vector_scalar
#endif
#define CHORUS_INLINE [[gnu::always_inline]] inline

namespace chorus::CHORUS_VECTOR_NAMESPACE {

using Bfloat16Bits = std::uint16_t;
using Int8Code = std::int8_t;

#if defined(__AVX512F__)

struct Vector16 {
  __m512 lanes;
};
using Mask16 = __mmask16;

CHORUS_INLINE Vector16 broadcast(float value) {
  return {_mm512_set1_ps(value)};
}
CHORUS_INLINE Vector16 load(const float* data) {
  return {_mm512_loadu_ps(data)};
}
CHORUS_INLINE Vector16 load(const Bfloat16Bits* data) {
  const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(data));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16))};
}
CHORUS_INLINE Vector16 load(const Int8Code* data) {
  const __m128i codes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(data));
  return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(codes))};
}
CHORUS_INLINE __mmask16 first_lanes(int count) {
  return static_cast<__mmask16>((1U << count) - 1U);
}
CHORUS_INLINE Vector16 load_first(const float* data, int count) {
  return {_mm512_maskz_loadu_ps(first_lanes(count), data)};
}
CHORUS_INLINE Vector16 load_first(const Bfloat16Bits* data, int count) {
  const __m256i bits = _mm256_maskz_loadu_epi16(first_lanes(count), data);
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16))};
}
CHORUS_INLINE Vector16 load_first(const Int8Code* data, int count) {
  return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(first_lanes(count), data)))};
}
CHORUS_INLINE void store(float* data, Vector16 a) {
  _mm512_storeu_ps(data, a.lanes);
}
CHORUS_INLINE void store_first(float* data, Vector16 a, int count) {
  _mm512_mask_storeu_ps(data, first_lanes(count), a.lanes);
}
CHORUS_INLINE Vector16 keep_first(Vector16 a, int count) {
  return {_mm512_maskz_mov_ps(first_lanes(count), a.lanes)};
}
CHORUS_INLINE Vector16 add(Vector16 a, Vector16 b) {
  return {_mm512_add_ps(a.lanes, b.lanes)};
}
CHORUS_INLINE Vector16 subtract(Vector16 a, Vector16 b) {
  return {_mm512_sub_ps(a.lanes, b.lanes)};
}
CHORUS_INLINE Vector16 multiply(Vector16 a, Vector16 b) {
  return {_mm512_mul_ps(a.lanes, b.lanes)};
}
CHORUS_INLINE Vector16 divide(Vector16 a, Vector16 b) {
  return {_mm512_div_ps(a.lanes, b.lanes)};
}
CHORUS_INLINE Vector16 multiply_add(Vector16 a, Vector16 b, Vector16 c) {
  return {_mm512_fmadd_ps(a.lanes, b.lanes, c.lanes)};
}
CHORUS_INLINE Vector16 minimum(Vector16 a, Vector16 b) {
  return {_mm512_min_ps(a.lanes, b.lanes)};
}
CHORUS_INLINE Vector16 maximum(Vector16 a, Vector16 b) {
  return {_mm512_max_ps(a.lanes, b.lanes)};
}
CHORUS_INLINE Vector16 zero_where_less(Vector16 a, Vector16 x, Vector16 limit) {
  return {_mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x.lanes, limit.lanes, _CMP_NLT_UQ), a.lanes)};
}
CHORUS_INLINE Vector16 add_exponent(Vector16 a, Vector16 n, Vector16 zero) {
  const __m512i exponent = _mm512_sub_epi32(_mm512_castps_si512(n.lanes), _mm512_castps_si512(zero.lanes));
  return {_mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(a.lanes), _mm512_slli_epi32(exponent, 23)))};
}
CHORUS_INLINE __m256 lower8(Vector16 a) {
  return _mm512_castps512_ps256(a.lanes);
}
CHORUS_INLINE __m256 upper8(Vector16 a) {
  return _mm512_extractf32x8_ps(a.lanes, 1);
}

#elif defined(__AVX2__)

struct Vector16 {
  __m256 lower, upper;
};

CHORUS_INLINE Vector16 broadcast(float value) {
  return {_mm256_set1_ps(value), _mm256_set1_ps(value)};
}
CHORUS_INLINE Vector16 load(const float* data) {
  return {_mm256_loadu_ps(data), _mm256_loadu_ps(data + 8)};
}
CHORUS_INLINE __m256 load8(const Bfloat16Bits* data) {
  const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(data));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}
CHORUS_INLINE __m256 load8(const Int8Code* data) {
  const __m128i codes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(data));
  return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(codes));
}
CHORUS_INLINE Vector16 load(const Bfloat16Bits* data) {
  return {load8(data), load8(data + 8)};
}
CHORUS_INLINE Vector16 load(const Int8Code* data) {
  return {load8(data), load8(data + 8)};
}
CHORUS_INLINE Vector16 load_first(const float* data, int count) {
  if (count == 8) return {_mm256_loadu_ps(data), _mm256_setzero_ps()};
  alignas(32) float copy[16] = {};
  for (int i = 0; i < count; ++i) copy[i] = data[i];
  return load(copy);
}
CHORUS_INLINE Vector16 load_first(const Bfloat16Bits* data, int count) {
  if (count == 8) return {load8(data), _mm256_setzero_ps()};
  alignas(32) Bfloat16Bits copy[16] = {};
  for (int i = 0; i < count; ++i) copy[i] = data[i];
  return load(copy);
}
CHORUS_INLINE Vector16 load_first(const Int8Code* data, int count) {
  if (count == 8) return {load8(data), _mm256_setzero_ps()};
  Int8Code copy[16] = {};
  for (int i = 0; i < count; ++i) copy[i] = data[i];
  return load(copy);
}
CHORUS_INLINE void store(float* data, Vector16 a) {
  _mm256_storeu_ps(data, a.lower);
  _mm256_storeu_ps(data + 8, a.upper);
}
CHORUS_INLINE void store_first(float* data, Vector16 a, int count) {
  alignas(32) float copy[16];
  store(copy, a);
  for (int i = 0; i < count; ++i) data[i] = copy[i];
}
CHORUS_INLINE Vector16 keep_first(Vector16 a, int count) {
  alignas(32) float copy[16];
  store(copy, a);
  for (int i = count; i < 16; ++i) copy[i] = 0;
  return load(copy);
}
CHORUS_INLINE Vector16 add(Vector16 a, Vector16 b) {
  return {_mm256_add_ps(a.lower, b.lower), _mm256_add_ps(a.upper, b.upper)};
}
CHORUS_INLINE Vector16 subtract(Vector16 a, Vector16 b) {
  return {_mm256_sub_ps(a.lower, b.lower), _mm256_sub_ps(a.upper, b.upper)};
}
CHORUS_INLINE Vector16 multiply(Vector16 a, Vector16 b) {
  return {_mm256_mul_ps(a.lower, b.lower), _mm256_mul_ps(a.upper, b.upper)};
}
CHORUS_INLINE Vector16 divide(Vector16 a, Vector16 b) {
  return {_mm256_div_ps(a.lower, b.lower), _mm256_div_ps(a.upper, b.upper)};
}
CHORUS_INLINE Vector16 multiply_add(Vector16 a, Vector16 b, Vector16 c) {
  return {_mm256_fmadd_ps(a.lower, b.lower, c.lower), _mm256_fmadd_ps(a.upper, b.upper, c.upper)};
}
CHORUS_INLINE Vector16 minimum(Vector16 a, Vector16 b) {
  return {_mm256_min_ps(a.lower, b.lower), _mm256_min_ps(a.upper, b.upper)};
}
CHORUS_INLINE Vector16 maximum(Vector16 a, Vector16 b) {
  return {_mm256_max_ps(a.lower, b.lower), _mm256_max_ps(a.upper, b.upper)};
}
CHORUS_INLINE Vector16 zero_where_less(Vector16 a, Vector16 x, Vector16 limit) {
  return {_mm256_and_ps(a.lower, _mm256_cmp_ps(x.lower, limit.lower, _CMP_NLT_UQ)),
          _mm256_and_ps(a.upper, _mm256_cmp_ps(x.upper, limit.upper, _CMP_NLT_UQ))};
}
CHORUS_INLINE __m256 add_exponent8(__m256 a, __m256 n, __m256 zero) {
  const __m256i exponent = _mm256_sub_epi32(_mm256_castps_si256(n), _mm256_castps_si256(zero));
  return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(a), _mm256_slli_epi32(exponent, 23)));
}
CHORUS_INLINE Vector16 add_exponent(Vector16 a, Vector16 n, Vector16 zero) {
  return {add_exponent8(a.lower, n.lower, zero.lower), add_exponent8(a.upper, n.upper, zero.upper)};
}
CHORUS_INLINE __m256 lower8(Vector16 a) {
  return a.lower;
}
CHORUS_INLINE __m256 upper8(Vector16 a) {
  return a.upper;
}

#else

struct Vector16 {
  float lanes[16];
};

template <typename F>
CHORUS_INLINE Vector16 each_lane(F f) {
  Vector16 result;
  for (int i = 0; i < 16; ++i) result.lanes[i] = f(i);
  return result;
}
CHORUS_INLINE float widen(float value) {
  return value;
}
CHORUS_INLINE float widen(Bfloat16Bits bits) {
  return __builtin_bit_cast(float, static_cast<std::uint32_t>(bits) << 16);
}
CHORUS_INLINE float widen(Int8Code code) {
  return static_cast<float>(code);
}
CHORUS_INLINE Vector16 broadcast(float value) {
  return each_lane([&](int) { return value; });
}
template <typename T>
CHORUS_INLINE Vector16 load(const T* data) {
  return each_lane([&](int i) { return widen(data[i]); });
}
template <typename T>
CHORUS_INLINE Vector16 load_first(const T* data, int count) {
  return each_lane([&](int i) { return i < count ? widen(data[i]) : 0.0F; });
}
CHORUS_INLINE void store_first(float* data, Vector16 a, int count) {
  for (int i = 0; i < count; ++i) data[i] = a.lanes[i];
}
CHORUS_INLINE void store(float* data, Vector16 a) {
  store_first(data, a, 16);
}
CHORUS_INLINE Vector16 keep_first(Vector16 a, int count) {
  return each_lane([&](int i) { return i < count ? a.lanes[i] : 0.0F; });
}
CHORUS_INLINE Vector16 add(Vector16 a, Vector16 b) {
  return each_lane([&](int i) { return a.lanes[i] + b.lanes[i]; });
}
CHORUS_INLINE Vector16 subtract(Vector16 a, Vector16 b) {
  return each_lane([&](int i) { return a.lanes[i] - b.lanes[i]; });
}
CHORUS_INLINE Vector16 multiply(Vector16 a, Vector16 b) {
  return each_lane([&](int i) { return a.lanes[i] * b.lanes[i]; });
}
CHORUS_INLINE Vector16 divide(Vector16 a, Vector16 b) {
  return each_lane([&](int i) { return a.lanes[i] / b.lanes[i]; });
}
CHORUS_INLINE Vector16 multiply_add(Vector16 a, Vector16 b, Vector16 c) {
  return each_lane([&](int i) { return a.lanes[i] * b.lanes[i] + c.lanes[i]; });
}
CHORUS_INLINE Vector16 minimum(Vector16 a, Vector16 b) {
  return each_lane([&](int i) { return a.lanes[i] < b.lanes[i] ? a.lanes[i] : b.lanes[i]; });
}
CHORUS_INLINE Vector16 maximum(Vector16 a, Vector16 b) {
  return each_lane([&](int i) { return a.lanes[i] > b.lanes[i] ? a.lanes[i] : b.lanes[i]; });
}
CHORUS_INLINE Vector16 zero_where_less(Vector16 a, Vector16 x, Vector16 limit) {
  return each_lane([&](int i) { return x.lanes[i] < limit.lanes[i] ? 0.0F : a.lanes[i]; });
}
CHORUS_INLINE std::uint32_t bits_of(float value) {
  return __builtin_bit_cast(std::uint32_t, value);
}
CHORUS_INLINE Vector16 add_exponent(Vector16 a, Vector16 n, Vector16 zero) {
  return each_lane([&](int i) {
    const std::uint32_t exponent = bits_of(n.lanes[i]) - bits_of(zero.lanes[i]);
    return __builtin_bit_cast(float, bits_of(a.lanes[i]) + (exponent << 23));
  });
}

#endif

// The lanes combined by a fixed tree: lane i with i + 8, then i + 4, i + 2, i + 1. minimum(a, b) and maximum(a, b) give
// b where either is NaN, as the x86 instructions do.
#if defined(__AVX2__)
CHORUS_INLINE float sum_of(Vector16 a) {
  const __m256 eight = _mm256_add_ps(lower8(a), upper8(a));
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
CHORUS_INLINE float maximum_of(Vector16 a) {
  const __m256 eight = _mm256_max_ps(lower8(a), upper8(a));
  const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}
#else
CHORUS_INLINE float sum_of(Vector16 a) {
  for (int half = 8; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) a.lanes[i] = a.lanes[i] + a.lanes[i + half];
  }
  return a.lanes[0];
}
CHORUS_INLINE float maximum_of(Vector16 a) {
  for (int half = 8; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) a.lanes[i] = a.lanes[i] > a.lanes[i + half] ? a.lanes[i] : a.lanes[i + half];
  }
  return a.lanes[0];
}
#endif

CHORUS_INLINE Vector16 zero() {
  return broadcast(0.0F);
}

// e^x within 2 units in the last place: x = n ln 2 + r, |r| <= ln 2 / 2, polynomial of Cephes' expf (Moshier, 1989).
// Below -87.3 it is exactly 0 (-inf included, no subnormals), above 88.3 it stays at e^88.3; NaN stays NaN.
CHORUS_INLINE Vector16 exponential(Vector16 x) {
  const Vector16 bounded = minimum(broadcast(88.3F), maximum(broadcast(-87.3F), x));
  // Adding 1.5 * 2^23 rounds to the nearest integer, which then stands in the low bits of the sum.
  const Vector16 rounder = broadcast(12582912.0F);
  const Vector16 shifted = multiply_add(bounded, broadcast(1.44269504088896341F), rounder);
  const Vector16 n = subtract(shifted, rounder);
  // ln 2 = 0.693359375 - 2.12194440e-4; n times the first part is exact.
  const Vector16 partly = subtract(bounded, multiply(n, broadcast(0.693359375F)));
  const Vector16 r = multiply_add(n, broadcast(2.12194440e-4F), partly);
  Vector16 y = multiply_add(broadcast(1.9875691500e-4F), r, broadcast(1.3981999507e-3F));
  y = multiply_add(y, r, broadcast(8.3334519073e-3F));
  y = multiply_add(y, r, broadcast(4.1665795894e-2F));
  y = multiply_add(y, r, broadcast(1.6666665459e-1F));
  y = multiply_add(y, r, broadcast(5.0000001201e-1F));
  y = add(multiply_add(y, multiply(r, r), r), broadcast(1.0F));
  return zero_where_less(add_exponent(y, shifted, rounder), x, broadcast(-87.3F));
}

// cap tanh(x / cap), tanh(u) being 1 - 2 / (1 + e^2u): within 2^-22 cap.
CHORUS_INLINE Vector16 soft_capped(Vector16 x, float cap) {
  const Vector16 twice = multiply(x, broadcast(2.0F / cap));
  const Vector16 part = divide(broadcast(2.0F), add(broadcast(1.0F), exponential(twice)));
  return multiply(broadcast(cap), subtract(broadcast(1.0F), part));
}

}  // namespace chorus::CHORUS_VECTOR_NAMESPACE

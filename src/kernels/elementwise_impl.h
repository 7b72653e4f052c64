// The rows of elementwise_rows.h over Vector16; see vector16.h for the rules of such files. Sums over a row are 16
// interleaved partial sums (lane i takes elements i, i + 16, ...) combined by Vector16's tree.
#pragma once

#include "kernels/elementwise_rows.h"
#include "kernels/vector16.h"

namespace chorus::CHORUS_VECTOR_NAMESPACE {

// f(offset, count) for each 16 elements of a row; count is less for the last ones.
template <typename F>
CHORUS_INLINE void for_each16(std::int64_t width, F f) {
  std::int64_t i = 0;
  for (; i + 16 <= width; i += 16) f(i, 16);
  if (i < width) f(i, static_cast<int>(width - i));
}
CHORUS_INLINE Vector16 load_some(const float* data, int count) {
  return count == 16 ? load(data) : load_first(data, count);
}
CHORUS_INLINE void store_some(float* data, Vector16 a, int count) {
  if (count == 16) {
    store(data, a);
  } else {
    store_first(data, a, count);
  }
}
CHORUS_INLINE float inverse_root(float mean_square, float eps) {
  return 1.0F / __builtin_sqrtf(mean_square + eps);
}

inline void rms_norm_row(const float* x, std::int64_t width, const float* weight, float eps, float* out) {
  Vector16 squares = zero();
  for_each16(width, [&](std::int64_t i, int count) {
    const Vector16 a = load_some(x + i, count);
    squares = multiply_add(a, a, squares);
  });
  const Vector16 factor = broadcast(inverse_root(sum_of(squares) / static_cast<float>(width), eps));
  for_each16(width, [&](std::int64_t i, int count) {
    const Vector16 normed = multiply(load_some(x + i, count), factor);
    store_some(out + i, multiply(normed, load_some(weight + i, count)), count);
  });
}

inline void layer_norm_row(const float* x, std::int64_t width, const float* weight, const float* bias, float eps,
                           float* out) {
  Vector16 sum = zero();
  for_each16(width, [&](std::int64_t i, int count) { sum = add(sum, load_some(x + i, count)); });
  const Vector16 mean = broadcast(sum_of(sum) / static_cast<float>(width));
  Vector16 squares = zero();
  for_each16(width, [&](std::int64_t i, int count) {
    Vector16 a = subtract(load_some(x + i, count), mean);
    if (count < 16) a = keep_first(a, count);
    squares = multiply_add(a, a, squares);
  });
  const Vector16 factor = broadcast(inverse_root(sum_of(squares) / static_cast<float>(width), eps));
  for_each16(width, [&](std::int64_t i, int count) {
    const Vector16 normed = multiply(subtract(load_some(x + i, count), mean), factor);
    const Vector16 scaled = multiply(normed, load_some(weight + i, count));
    store_some(out + i, bias == nullptr ? scaled : add(scaled, load_some(bias + i, count)), count);
  });
}

inline void rotary_head(float* x, int half, const float* cosines, const float* sines) {
  for_each16(half, [&](std::int64_t i, int count) {
    const Vector16 a = load_some(x + i, count), b = load_some(x + half + i, count);
    const Vector16 cosine = load_some(cosines + i, count), sine = load_some(sines + i, count);
    store_some(x + i, subtract(multiply(a, cosine), multiply(b, sine)), count);
    store_some(x + half + i, add(multiply(b, cosine), multiply(a, sine)), count);
  });
}

inline void silu_mul_row(const float* gate, const float* up, std::int64_t width, float* out) {
  const Vector16 one = broadcast(1.0F);
  for_each16(width, [&](std::int64_t i, int count) {
    const Vector16 a = load_some(gate + i, count);
    const Vector16 silu = divide(a, add(one, exponential(subtract(zero(), a))));
    store_some(out + i, multiply(silu, load_some(up + i, count)), count);
  });
}

// x / (1 + e^-y).
CHORUS_INLINE Vector16 over_one_plus_exponential(Vector16 x, Vector16 y) {
  return divide(x, add(broadcast(1.0F), exponential(subtract(zero(), y))));
}

// 1 + tanh(u) is 2 / (1 + e^-2u).
CHORUS_INLINE Vector16 gelu_tanh_of(Vector16 x) {
  const Vector16 cube = multiply(multiply(x, x), x);
  const Vector16 inner = multiply_add(broadcast(0.044715F), cube, x);
  return over_one_plus_exponential(x, multiply(broadcast(1.5957691216057308F), inner));  // 2 sqrt(2 / pi)
}

inline void gelu_mul_row(const float* gate, const float* up, std::int64_t width, float* out) {
  for_each16(width, [&](std::int64_t i, int count) {
    store_some(out + i, multiply(gelu_tanh_of(load_some(gate + i, count)), load_some(up + i, count)), count);
  });
}

inline void clamped_swish_mul_row(const float* gate, const float* up, std::int64_t width, float* out) {
  const Vector16 limit = broadcast(7.0F), alpha = broadcast(1.702F), one = broadcast(1.0F);
  for_each16(width, [&](std::int64_t i, int count) {
    const Vector16 a = minimum(limit, load_some(gate + i, count));
    const Vector16 b = maximum(broadcast(-7.0F), minimum(limit, load_some(up + i, count)));
    const Vector16 swish = over_one_plus_exponential(a, multiply(a, alpha));
    store_some(out + i, multiply(add(b, one), swish), count);
  });
}

inline void gelu_row(float* x, std::int64_t width) {
  for_each16(width,
             [&](std::int64_t i, int count) { store_some(x + i, gelu_tanh_of(load_some(x + i, count)), count); });
}

inline void softcap_row(float cap, float* x, std::int64_t width) {
  for_each16(width,
             [&](std::int64_t i, int count) { store_some(x + i, soft_capped(load_some(x + i, count), cap), count); });
}

inline void add_gated_row(float gate, const float* x, std::int64_t width, float* y) {
  const Vector16 factor = over_one_plus_exponential(broadcast(1.0F), broadcast(gate));
  for_each16(width, [&](std::int64_t i, int count) {
    store_some(y + i, add(load_some(y + i, count), multiply(factor, load_some(x + i, count))), count);
  });
}

inline constexpr ElementwiseKernels elementwise_kernels = {rms_norm_row, layer_norm_row, rotary_head,
                                                           silu_mul_row, gelu_mul_row,   clamped_swish_mul_row,
                                                           gelu_row,     softcap_row,    add_gated_row};

}  // namespace chorus::CHORUS_VECTOR_NAMESPACE

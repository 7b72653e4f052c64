// What the vector kernels of products share: float32 registers, the tree over segments, and what becomes of a finished
// sum. Included only by files that are compiled for one instruction set. The registers are in an anonymous namespace,
// and what is written over them has one of them as a parameter, so each of these files has its own instances.
#pragma once

#include <immintrin.h>

#include "kernels/linear_kernel.h"

namespace chorus {
namespace {

#if defined(__AVX512F__)
struct FloatVector {
  using Register = __m512;
  static constexpr int lanes = 16;

  static Register zero() { return _mm512_setzero_ps(); }
  static Register load(const float* p) { return _mm512_loadu_ps(p); }
  static void store(float* p, Register v) { _mm512_storeu_ps(p, v); }
  static Register broadcast(float value) { return _mm512_set1_ps(value); }
  static Register add(Register a, Register b) { return _mm512_add_ps(a, b); }
  static Register multiply(Register a, Register b) { return _mm512_mul_ps(a, b); }
  static Register fma(Register a, Register b, Register c) { return _mm512_fmadd_ps(a, b, c); }
};
#else
struct FloatVector {
  using Register = __m256;
  static constexpr int lanes = 8;

  static Register zero() { return _mm256_setzero_ps(); }
  static Register load(const float* p) { return _mm256_loadu_ps(p); }
  static void store(float* p, Register v) { _mm256_storeu_ps(p, v); }
  static Register broadcast(float value) { return _mm256_set1_ps(value); }
  static Register add(Register a, Register b) { return _mm256_add_ps(a, b); }
  static Register multiply(Register a, Register b) { return _mm256_mul_ps(a, b); }
  static Register fma(Register a, Register b, Register c) { return _mm256_fmadd_ps(a, b, c); }
};
#endif

}  // namespace

// Finished sums of outputs [n, n + lanes) of the row at `y` (y[0] is output n): plus the bias, and added to what is
// there where the epilogue says so. Outputs beyond the last are left out; there is at least one.
template <typename Vector>
void store_outputs(const LinearCall& call, std::int64_t n, float* y, typename Vector::Register value) {
  const float* bias = call.epilogue.bias;
  const std::int64_t count = call.weight.shape.rows - n;
  if (count >= Vector::lanes) {
    if (bias != nullptr) value = Vector::add(value, Vector::load(bias + n));
    if (call.epilogue.accumulate) value = Vector::add(Vector::load(y), value);
    return Vector::store(y, value);
  }
  float values[Vector::lanes];
  Vector::store(values, value);
  for (std::int64_t i = 0; i < count; ++i) {
    if (bias != nullptr) values[i] += bias[n + i];
    y[i] = call.epilogue.accumulate ? y[i] + values[i] : values[i];
  }
}

// The tree over the segments of a product (linear.h) for a tile of sums: the finished left siblings on the way to the
// root, as a binary counter. At most log2(8) of them.
template <typename Vector, int rows, int vectors>
class SegmentTree {
 public:
  // Takes segment number `segment`, 0 first, in `sum`; after the last one that is the whole.
  [[gnu::always_inline]] void add(int segment, int segments, typename Vector::Register (&sum)[rows][vectors]) {
    int level = 0;
    for (; (segment >> level & 1) != 0; ++level) {
      for_each([&](int i, int j) { sum[i][j] = Vector::add(Vector::load(waiting_[level][i][j]), sum[i][j]); });
    }
    if (segment + 1 < segments) for_each([&](int i, int j) { Vector::store(waiting_[level][i][j], sum[i][j]); });
  }

  template <typename F>
  [[gnu::always_inline]] static void for_each(F f) {
#pragma GCC unroll 16
    for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 8
      for (int j = 0; j < vectors; ++j) f(i, j);
    }
  }

 private:
  alignas(64) float waiting_[3][rows][vectors][Vector::lanes];
};

}  // namespace chorus

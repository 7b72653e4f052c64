// The passes of sample_passes.h; see vector16.h for the rules of such files.
#pragma once

#include "kernels/sample_passes.h"
#include "kernels/vector16.h"

namespace chorus::CHORUS_VECTOR_NAMESPACE {

// As key_of in sample.cc.
CHORUS_INLINE std::int32_t order_key(float value) {
  const auto bits = __builtin_bit_cast(std::int32_t, value + 0.0F);
  return bits ^ ((bits >> 31) & 0x7fffffff);
}

struct BlockScan {
  std::int32_t largest;
  std::int32_t excess;  // negative once a NaN was seen: its bits without sign are beyond those of infinity
};
CHORUS_INLINE BlockScan scan_block(const float* logits, std::size_t count) {
  BlockScan result = {-0x7fffffff - 1, 0};
  for (std::size_t i = 0; i < count; ++i) {
    const std::int32_t key = order_key(logits[i]);
    result.largest = key > result.largest ? key : result.largest;
    result.excess |= 0x7f800000 - (__builtin_bit_cast(std::int32_t, logits[i]) & 0x7fffffff);
  }
  return result;
}

inline SampleScan scan_logits(const float* logits, std::size_t count, std::int32_t* block_largest) {
  BlockScan all = {-0x7fffffff - 1, 0};
  for (std::size_t i = 0; i < count; i += sample_block) {
    // The whole blocks have a constant length, for the compiler to unroll.
    const BlockScan block =
        i + sample_block <= count ? scan_block(logits + i, sample_block) : scan_block(logits + i, count - i);
    *block_largest++ = block.largest;
    all.largest = block.largest > all.largest ? block.largest : all.largest;
    all.excess |= block.excess;
  }
  return {all.largest, all.excess < 0};
}

// e^x for x <= 0 within 2 units in the last place, exactly 0 below -87.3, exactly 1 at 0: exponential() of vector16.h
// without its fused operations, so that all processors agree.
CHORUS_INLINE float weight_of(float x) {
  const float bounded = x < -87.3F ? -87.3F : x;
  const float shifted = bounded * 1.44269504088896341F + 12582912.0F;
  const float n = shifted - 12582912.0F;
  const float r = (bounded - n * 0.693359375F) + n * 2.12194440e-4F;
  float y = 1.9875691500e-4F * r + 1.3981999507e-3F;
  y = y * r + 8.3334519073e-3F;
  y = y * r + 4.1665795894e-2F;
  y = y * r + 1.6666665459e-1F;
  y = y * r + 5.0000001201e-1F;
  y = (y * (r * r) + r) + 1.0F;
  const std::uint32_t exponent =
      __builtin_bit_cast(std::uint32_t, shifted) - __builtin_bit_cast(std::uint32_t, 12582912.0F);
  const std::uint32_t power = __builtin_bit_cast(std::uint32_t, y) + (exponent << 23);
  return __builtin_bit_cast(float, x < -87.3F ? 0U : power);
}

inline void weigh_logits(const float* logits, std::size_t count, float largest, float temperature, float min_p,
                         float* weights) {
  for (std::size_t i = 0; i < count; ++i) {
    const float weight = weight_of((logits[i] - largest) / temperature);
    weights[i] = __builtin_bit_cast(float, weight < min_p ? 0U : __builtin_bit_cast(std::uint32_t, weight));
  }
}

inline constexpr SamplePasses sample_passes = {scan_logits, weigh_logits};

}  // namespace chorus::CHORUS_VECTOR_NAMESPACE

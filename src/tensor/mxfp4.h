// MXFP4 (Open Compute Project, "OCP microscaling formats (MX) specification", version 1.0, section 5): 32 elements E2M1
// that share a power of two, E8M0. Twice an element is an integer, so a block is a group of int8.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "tensor/linear_format.h"

namespace chorus {

// float32 of an E8M0 byte; 2^-127 is subnormal, 255 NaN.
inline float power_of_e8m0(int code) {
  if (code == 255) return std::numeric_limits<float>::quiet_NaN();
  return code == 0 ? 0x1p-127F : std::bit_cast<float>(static_cast<std::uint32_t>(code) << 23);
}

// Twice the element of 4 bits.
inline int twice_of_e2m1(int code) {
  constexpr std::int8_t values[] = {0, 1, 2, 3, 4, 6, 8, 12};
  return code < 8 ? values[code] : -values[code - 8];
}

// The group of a block; code_of(k) is element k of it. Below the least of binary16 the codes are rounded.
template <typename CodeOf>
LinearGroup mxfp4_group(int exponent, const CodeOf& code_of) {
  constexpr int exponent_min = 128 - 24;  // half of 2^(exponent - 127) is the least of binary16
  const int lost = std::max(0, exponent_min - exponent);
  LinearGroup group;
  const float half_scale = 0.5F * power_of_e8m0(exponent + lost);
  group.scale = half_scale > 32768 ? std::uint16_t{0x7c00} : float_to_half(half_scale);
  for (int k = 0; k < group_columns; ++k) {
    const float code = std::nearbyint(std::ldexp(static_cast<float>(twice_of_e2m1(code_of(k))), -lost));
    group.codes[k] = static_cast<std::int8_t>(code);
  }
  return group;
}

}  // namespace chorus

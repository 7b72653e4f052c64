// Element types, and the conversions between them that every room must do in the same way.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "base/fields.h"

namespace chorus {

// What a checkpoint may hold and what weights and KV caches are stored in. Arithmetic is always float32 (design.md 1).
enum class DType : std::uint8_t { float32, bfloat16, float16 };

constexpr auto enumeration_of(DType) {
  return Enumeration{"a dtype", DType::float16};
}

// Switches without a default, here and below: the compiler names the places that a new type is missing from.
constexpr std::size_t bytes_of(DType dtype) {
  switch (dtype) {
    case DType::float32:
      return 4;
    case DType::bfloat16:
    case DType::float16:
      return 2;
  }
  return 0;
}

constexpr const char* name_of(DType dtype) {
  switch (dtype) {
    case DType::float32:
      return "float32";
    case DType::bfloat16:
      return "bfloat16";
    case DType::float16:
      return "float16";
  }
  return "unknown";
}

// bfloat16 as its bits: the upper half of a float32.
using Bfloat16 = std::uint16_t;

inline float to_float(Bfloat16 value) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(value) << 16);
}

// Round to nearest, ties to even; NaN stays NaN (quiet), infinities stay.
inline Bfloat16 to_bfloat16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  if ((bits & 0x7fffffffU) > 0x7f800000U) return static_cast<Bfloat16>((bits >> 16) | 0x40U);
  return static_cast<Bfloat16>((bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16);
}

// IEEE 754 binary16 to float32, subnormals included.
inline float half_to_float(std::uint16_t value) {
  const std::uint32_t sign = static_cast<std::uint32_t>(value & 0x8000U) << 16;
  const std::uint32_t exponent = (value >> 10) & 0x1fU;
  const std::uint32_t mantissa = value & 0x3ffU;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000U | (mantissa << 13));
  if (exponent == 0) {
    const float magnitude = static_cast<float>(mantissa) * 0x1.0p-24F;
    return sign != 0 ? -magnitude : magnitude;
  }
  return std::bit_cast<float>(sign | ((exponent + 112U) << 23) | (mantissa << 13));
}

// To the nearest, ties to even; subnormals too. Beyond the range the largest finite one; NaN stays NaN.
inline std::uint16_t float_to_half(float value) {
  constexpr float largest = 65504.0F;
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const auto sign = static_cast<std::uint16_t>(bits >> 16 & 0x8000U);
  if (value != value) return static_cast<std::uint16_t>(sign | 0x7e00U);
  const float positive = std::bit_cast<float>(bits & 0x7fffffffU), magnitude = positive < largest ? positive : largest;
  // Below 2^-14 the steps are of 2^-24: adding 0.5 rounds to them.
  if (magnitude < 0x1p-14F) {
    return static_cast<std::uint16_t>(sign | (std::bit_cast<std::uint32_t>(magnitude + 0.5F) & 0x7ffU));
  }
  const auto rounded = std::bit_cast<std::uint32_t>(magnitude);
  const std::uint32_t even = rounded >> 13 & 1U;
  return static_cast<std::uint16_t>(sign | ((rounded + 0xfffU + even - (112U << 23)) >> 13));
}

// One element of an array of `dtype` at `index` as float32. `data` needs no alignment.
inline float load_as_float(const std::byte* data, DType dtype, std::size_t index) {
  const auto bits16 = [&] {
    std::uint16_t bits;
    std::memcpy(&bits, data + index * sizeof(bits), sizeof(bits));
    return bits;
  };
  switch (dtype) {
    case DType::float32: {
      float value;
      std::memcpy(&value, data + index * sizeof(value), sizeof(value));
      return value;
    }
    case DType::bfloat16:
      return to_float(bits16());
    case DType::float16:
      return half_to_float(bits16());
  }
  return 0;
}

}  // namespace chorus

#include "gguf/tensor_type.h"

#include <algorithm>
#include <cstring>
#include <iterator>

#include "tensor/mxfp4.h"

namespace chorus {
namespace {

constexpr int k_elements = 256;  // of a block of the "K" types

float half_at(const std::byte* data) {
  std::uint16_t bits;
  std::memcpy(&bits, data, sizeof(bits));
  return half_to_float(bits);
}

int byte_at(const std::byte* data, int index) {
  return static_cast<int>(data[index]);
}

int signed_byte_at(const std::byte* data, int index) {
  return static_cast<std::int8_t>(data[index]);
}

std::uint32_t word_at(const std::byte* data) {
  std::uint32_t word;
  std::memcpy(&word, data, sizeof(word));
  return word;
}

// 32 elements of 4 bits: the first half in the low ones of 16 bytes, the second in the high ones. `value` turns the
// number and the element's index into what it stands for.
template <typename Value>
void unpack_nibbles(const std::byte* packed, float* out, Value&& value) {
  for (int i = 0; i < 16; ++i) {
    const int both = byte_at(packed, i);
    out[i] = value(both & 15, i);
    out[i + 16] = value(both >> 4, i + 16);
  }
}

void from_q4_0(const std::byte* block, float* out) {
  const float scale = half_at(block);
  unpack_nibbles(block + 2, out, [scale](int q, int) { return static_cast<float>(q - 8) * scale; });
}

void from_q4_1(const std::byte* block, float* out) {
  const float scale = half_at(block), minimum = half_at(block + 2);
  unpack_nibbles(block + 4, out, [=](int q, int) { return static_cast<float>(q) * scale + minimum; });
}

// The fifth bits of all elements are in one word, before the other four.
void from_q5_0(const std::byte* block, float* out) {
  const float scale = half_at(block);
  const std::uint32_t fifth = word_at(block + 2);
  unpack_nibbles(block + 6, out, [=](int q, int i) {
    return static_cast<float>((q | static_cast<int>(fifth >> i & 1U) << 4) - 16) * scale;
  });
}

void from_q5_1(const std::byte* block, float* out) {
  const float scale = half_at(block), minimum = half_at(block + 2);
  const std::uint32_t fifth = word_at(block + 4);
  unpack_nibbles(block + 8, out, [=](int q, int i) {
    return static_cast<float>(q | static_cast<int>(fifth >> i & 1U) << 4) * scale + minimum;
  });
}

void from_q8_0(const std::byte* block, float* out) {
  const float scale = half_at(block);
  for (int i = 0; i < 32; ++i) out[i] = static_cast<float>(signed_byte_at(block + 2, i)) * scale;
}

// 16 sub-blocks of 16: a scale and a minimum of 4 bits each, times the block's own; elements of 2 bits.
void from_q2_k(const std::byte* block, float* out) {
  const std::byte* const scales = block;
  const std::byte* const packed = block + 16;
  const float scale = half_at(block + 80), minimum = half_at(block + 82);
  for (int i = 0; i < k_elements; ++i) {
    const int both = byte_at(scales, i / 16);
    const int q = byte_at(packed, i / 128 * 32 + i % 32) >> (i % 128 / 32 * 2) & 3;
    out[i] = scale * static_cast<float>(both & 15) * static_cast<float>(q) - minimum * static_cast<float>(both >> 4);
  }
}

// 16 sub-blocks of 16 with scales of 6 bits: the low 4 of two in one of the first 8 bytes, the high 2 of four in one of
// the last 4. The third bit of an element, if it is 0, takes 4 away.
void from_q3_k(const std::byte* block, float* out) {
  const std::byte* const third = block;
  const std::byte* const packed = block + 32;
  const std::byte* const scales = block + 96;
  const float scale = half_at(block + 108);
  for (int i = 0; i < k_elements; ++i) {
    const int sub = i / 16;
    const int low = sub < 8 ? byte_at(scales, sub) & 15 : byte_at(scales, sub - 8) >> 4;
    const int high = byte_at(scales, 8 + sub % 4) >> (sub / 4 * 2) & 3;
    const int bit = byte_at(third, i % 32) >> (i / 32) & 1;
    const int q = (byte_at(packed, i / 128 * 32 + i % 32) >> (i % 128 / 32 * 2) & 3) - (bit != 0 ? 0 : 4);
    out[i] = scale * static_cast<float>((low | high << 4) - 32) * static_cast<float>(q);
  }
}

// 8 sub-blocks of 32 with scales and minima of 6 bits in 12 bytes: those of the first four in the low 6 bits of bytes 0
// to 7; of the last four the low 4 bits in bytes 8 to 11, the high 2 on top of bytes 0 to 7.
struct SixBits {
  float scale, minimum;
};
SixBits six_bits(const std::byte* scales, int sub) {
  if (sub < 4) {
    return {static_cast<float>(byte_at(scales, sub) & 63), static_cast<float>(byte_at(scales, sub + 4) & 63)};
  }
  const int low = byte_at(scales, sub + 4);
  return {static_cast<float>((low & 15) | (byte_at(scales, sub - 4) >> 6) << 4),
          static_cast<float>(low >> 4 | (byte_at(scales, sub) >> 6) << 4)};
}

// Sub-blocks 2 j and 2 j + 1 have the low and the high halves of the same 32 bytes.
void from_q4_k(const std::byte* block, float* out) {
  const float scale = half_at(block), minimum = half_at(block + 2);
  for (int sub = 0; sub < 8; ++sub) {
    const SixBits own = six_bits(block + 4, sub);
    const float d = scale * own.scale, m = minimum * own.minimum;
    const std::byte* const packed = block + 16 + std::ptrdiff_t{sub} / 2 * 32;
    for (int i = 0; i < 32; ++i) {
      out[sub * 32 + i] = d * static_cast<float>(byte_at(packed, i) >> (sub % 2 * 4) & 15) - m;
    }
  }
}

void from_q5_k(const std::byte* block, float* out) {
  const float scale = half_at(block), minimum = half_at(block + 2);
  const std::byte* const fifth = block + 16;
  for (int sub = 0; sub < 8; ++sub) {
    const SixBits own = six_bits(block + 4, sub);
    const float d = scale * own.scale, m = minimum * own.minimum;
    const std::byte* const packed = block + 48 + std::ptrdiff_t{sub} / 2 * 32;
    for (int i = 0; i < 32; ++i) {
      const int q = (byte_at(packed, i) >> (sub % 2 * 4) & 15) | (byte_at(fifth, i) >> sub & 1) << 4;
      out[sub * 32 + i] = d * static_cast<float>(q) - m;
    }
  }
}

// 16 sub-blocks of 16 with signed scales of 8 bits; elements of 6 bits: 4 of them in `low`, 2 in `high`.
void from_q6_k(const std::byte* block, float* out) {
  const std::byte* const low = block;
  const std::byte* const high = block + 128;
  const std::byte* const scales = block + 192;
  const float scale = half_at(block + 208);
  for (int i = 0; i < k_elements; ++i) {
    const int half = i / 128, within = i % 128;
    const int nibble = byte_at(low, half * 64 + within % 64) >> (within / 64 * 4) & 15;
    const int top = byte_at(high, half * 32 + within % 32) >> (within / 32 * 2) & 3;
    const int q = (nibble | top << 4) - 32;
    out[i] = scale * static_cast<float>(signed_byte_at(scales, i / 16)) * static_cast<float>(q);
  }
}

// OCP Microscaling MXFP4: 32 elements E2M1 and a shared power of two E8M0.
void from_mxfp4(const std::byte* block, float* out) {
  constexpr float values[] = {0, 0.5F, 1, 1.5F, 2, 3, 4, 6, 0, -0.5F, -1, -1.5F, -2, -3, -4, -6};
  const int exponent = byte_at(block, 0);
  const float scale = exponent == 0 ? 0x1p-127F : std::bit_cast<float>(static_cast<std::uint32_t>(exponent) << 23);
  unpack_nibbles(block + 1, out, [=](int q, int) { return values[q] * scale; });
}

// ---- blocks of 32 as groups of codes (tensor/linear_format.h) ----

std::uint16_t bits_at(const std::byte* data) {
  std::uint16_t bits;
  std::memcpy(&bits, data, sizeof(bits));
  return bits;
}

// Of 4 bits, with 8 as what 0 stands for.
LinearGroup group_of_nibbles(const std::byte* packed, std::uint16_t scale) {
  LinearGroup group;
  group.scale = scale;
  for (int i = 0; i < 16; ++i) {
    group.codes[i] = static_cast<std::int8_t>(byte_at(packed, i) & 15);
    group.codes[i + 16] = static_cast<std::int8_t>(byte_at(packed, i) >> 4);
  }
  return group;
}

LinearGroup q8_0_group(const std::byte* row, std::int64_t first, LinearFormat::Kind /*int8*/) {
  const std::byte* const block = row + first / 32 * 34;
  LinearGroup group;
  group.scale = bits_at(block);
  std::memcpy(group.codes, block + 2, sizeof(group.codes));
  return group;
}

LinearGroup q4_0_group(const std::byte* row, std::int64_t first, LinearFormat::Kind kind) {
  const std::byte* const block = row + first / 32 * 18;
  LinearGroup group = group_of_nibbles(block + 2, bits_at(block));
  if (kind == LinearFormat::int8) {
    for (std::int8_t& code : group.codes) code = static_cast<std::int8_t>(code - 8);
  }
  return group;
}

LinearGroup q4_1_group(const std::byte* row, std::int64_t first, LinearFormat::Kind /*int4_minimum*/) {
  const std::byte* const block = row + first / 32 * 20;
  LinearGroup group = group_of_nibbles(block + 4, bits_at(block));
  group.minimum = bits_at(block + 2);
  return group;
}

LinearGroup q5_0_group(const std::byte* row, std::int64_t first, LinearFormat::Kind /*int8*/) {
  const std::byte* const block = row + first / 32 * 22;
  LinearGroup group = group_of_nibbles(block + 6, bits_at(block));
  const std::uint32_t fifth = word_at(block + 2);
  for (int i = 0; i < 32; ++i) {
    group.codes[i] = static_cast<std::int8_t>((group.codes[i] | static_cast<int>(fifth >> i & 1U) << 4) - 16);
  }
  return group;
}

LinearGroup mxfp4_block_group(const std::byte* row, std::int64_t first, LinearFormat::Kind /*int8*/) {
  const std::byte* const block = row + first / 32 * 17;
  return mxfp4_group(byte_at(block, 0), [block](int k) { return byte_at(block, 1 + k % 16) >> (k / 16 * 4) & 15; });
}

constexpr auto int8 = LinearFormat::int8, int4 = LinearFormat::int4, int4_minimum = LinearFormat::int4_minimum;

constexpr GgufTensorType types[] = {
    {0, "F32", 1, 4, DType::float32},
    {1, "F16", 1, 2, DType::float16},
    {2, "Q4_0", 32, 18, std::nullopt, from_q4_0, int4, q4_0_group},
    {3, "Q4_1", 32, 20, std::nullopt, from_q4_1, int4_minimum, q4_1_group},
    {6, "Q5_0", 32, 22, std::nullopt, from_q5_0, int8, q5_0_group},
    {7, "Q5_1", 32, 24, std::nullopt, from_q5_1, int8},
    {8, "Q8_0", 32, 34, std::nullopt, from_q8_0, int8, q8_0_group},
    {9, "Q8_1", 32, 36},
    {10, "Q2_K", k_elements, 84, std::nullopt, from_q2_k, int8},
    {11, "Q3_K", k_elements, 110, std::nullopt, from_q3_k, int8},
    {12, "Q4_K", k_elements, 144, std::nullopt, from_q4_k, int8},
    {13, "Q5_K", k_elements, 176, std::nullopt, from_q5_k, int8},
    {14, "Q6_K", k_elements, 210, std::nullopt, from_q6_k, int8},
    {15, "Q8_K", k_elements, 292},
    {16, "IQ2_XXS", k_elements, 66},
    {17, "IQ2_XS", k_elements, 74},
    {18, "IQ3_XXS", k_elements, 98},
    {19, "IQ1_S", k_elements, 50},
    {20, "IQ4_NL", 32, 18},
    {21, "IQ3_S", k_elements, 110},
    {22, "IQ2_S", k_elements, 82},
    {23, "IQ4_XS", k_elements, 136},
    {24, "I8", 1, 1},
    {25, "I16", 1, 2},
    {26, "I32", 1, 4},
    {27, "I64", 1, 8},
    {28, "F64", 1, 8},
    {29, "IQ1_M", k_elements, 56},
    {30, "BF16", 1, 2, DType::bfloat16},
    {34, "TQ1_0", k_elements, 54},
    {35, "TQ2_0", k_elements, 66},
    {39, "MXFP4", 32, 17, std::nullopt, from_mxfp4, int8, mxfp4_block_group},
};

}  // namespace

const GgufTensorType* find_gguf_tensor_type(std::uint32_t id) {
  const auto found = std::ranges::find(types, id, &GgufTensorType::id);
  return found == std::end(types) ? nullptr : found;
}

}  // namespace chorus

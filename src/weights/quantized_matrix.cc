#include "weights/quantized_matrix.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>

#include "base/check.h"
#include "tensor/mxfp4.h"

namespace chorus {
namespace {

constexpr int nibble_offset = 8;

// Number `index` of those that are packed in a word.
template <int bits>
int unpack(const std::byte* words, std::int64_t word, std::int64_t index) {
  std::uint32_t value;
  std::memcpy(&value, words + word * 4, sizeof(value));
  return static_cast<int>(value >> (index * bits) & ((1U << bits) - 1));
}

// The loops are apart, and the bits a constant, since this is done for each weight of a model.
template <int bits>
void read_words(const Integers& from, std::int64_t row, std::int64_t first, std::int64_t count, int* out) {
  constexpr std::int64_t n = 32 / bits;
  const std::int64_t end = first + count;
  switch (from.layout) {
    case IntegerLayout::down:
      for (std::int64_t c = first; c < end; ++c) *out++ = unpack<bits>(from.data, c / n * from.rows + row, c % n);
      return;
    case IntegerLayout::across:
    case IntegerLayout::interleaved: {
      constexpr std::int64_t places[] = {0, 4, 1, 5, 2, 6, 3, 7};
      const std::int64_t place = from.layout == IntegerLayout::across ? row % n : places[row % 8];
      const std::byte* words = from.data + row / n * 4;
      for (std::int64_t c = first; c < end; ++c) *out++ = unpack<bits>(words, c * (from.rows / n), place);
      return;
    }
    case IntegerLayout::along: {
      const std::byte* words = from.data + row * ((from.columns + n - 1) / n) * 4;
      for (std::int64_t c = first; c < end; ++c) *out++ = unpack<bits>(words, c / n, c % n);
      return;
    }
    case IntegerLayout::stacked: {
      const std::byte* words = from.data + row / n * from.columns * 4;
      for (std::int64_t c = first; c < end; ++c) *out++ = unpack<bits>(words, c, row % n);
      return;
    }
    case IntegerLayout::bytes:
      for (std::int64_t c = first; c < end; ++c) {
        const int code = std::to_integer<int>(from.data[row * from.columns + c]);
        *out++ = code < 128 ? code : code - 256;  // two's complement
      }
      return;
  }
}

constexpr std::array<float, 256> e4m3_values() {
  std::array<float, 256> values{};
  for (int code = 0; code < 256; ++code) {
    const int exponent = code >> 3 & 15, mantissa = code & 7;
    float value = static_cast<float>(exponent == 0 ? mantissa : mantissa + 8) * 0x1p-9F;
    for (int i = 1; i < exponent; ++i) value *= 2;
    if ((code & 127) == 127) value = std::numeric_limits<float>::quiet_NaN();
    values[static_cast<std::size_t>(code)] = code < 128 ? value : -value;
  }
  return values;
}
constexpr std::array<float, 256> e4m3 = e4m3_values();

class IntegerMatrix final : public QuantizedMatrix {
 public:
  IntegerMatrix(IntegerParts parts, LinearFormat::Kind kind)
      : QuantizedMatrix(parts.codes.rows, parts.codes.columns, kind), parts_(std::move(parts)) {}

  void read_floats(std::int64_t row, std::int64_t first, std::int64_t count, float* out) const override {
    for (std::int64_t column = first; column < first + count;) {
      int codes[group_columns];
      const std::int64_t group = group_of(column);
      const std::int64_t width = std::min({neighbours_of(column), first + count - column, std::int64_t{group_columns}});
      parts_.codes.read(row, column, width, codes);
      const float scale = parts_.scales.at(row, group);
      const int zero = parts_.zero_at(row, group);
      for (std::int64_t k = 0; k < width; ++k) *out++ = scale * static_cast<float>(codes[k] - zero);
      column += width;
    }
  }

  LinearGroup read(std::int64_t row, std::int64_t first, LinearFormat::Kind kind) const override {
    CHECK(holds_groups_of(kind, this->kind()), "groups as {}", name_of(LinearFormat(kind)));
    const std::int64_t group = group_of(first);
    const int zero = parts_.zero_at(row, group), offset = kind == LinearFormat::int8 ? zero : 0;
    LinearGroup read;
    read.scale = float_to_half(parts_.scales.at(row, group));
    if (kind == LinearFormat::int4_zero) read.minimum = float_to_half(static_cast<float>(-zero));
    int codes[group_columns];
    parts_.codes.read(row, first, group_columns, codes);
    for (int k = 0; k < group_columns; ++k) read.codes[k] = static_cast<std::int8_t>(codes[k] - offset);
    return read;
  }

 private:
  std::int64_t group_of(std::int64_t column) const {
    return parts_.group_of_column.empty() ? column / parts_.group_columns
                                          : parts_.group_of_column[static_cast<std::size_t>(column)];
  }
  // Columns from this one on that are known to be in its group.
  std::int64_t neighbours_of(std::int64_t column) const {
    return parts_.group_of_column.empty() ? parts_.group_columns - column % parts_.group_columns : 1;
  }

  IntegerParts parts_;
};

class Fp8Matrix final : public QuantizedMatrix {
 public:
  explicit Fp8Matrix(const Fp8Parts& parts)
      : QuantizedMatrix(parts.rows, parts.columns, LinearFormat::plain), parts_(parts) {}

  void read_floats(std::int64_t row, std::int64_t first, std::int64_t count, float* out) const override {
    const std::byte* codes = parts_.codes + row * columns();
    for (std::int64_t column = first; column < first + count;) {
      const std::int64_t block = column / parts_.block_columns;
      const std::int64_t end = std::min(first + count, (block + 1) * parts_.block_columns);
      const float scale = scale_of(row / parts_.block_rows, block);
      for (; column < end; ++column) *out++ = e4m3[static_cast<std::size_t>(codes[column])] * scale;
    }
  }

  LinearGroup read(std::int64_t, std::int64_t, LinearFormat::Kind) const override { CHECK(false, "FP8 has no groups"); }

 private:
  float scale_of(std::int64_t row, std::int64_t block) const {
    const Scales& scales = parts_.scales;
    return parts_.has_power_scales
               ? power_of_e8m0(std::to_integer<int>(scales.data[row * scales.row_step + block * scales.group_step]))
               : scales.at(row, block);
  }

  Fp8Parts parts_;
};

class Mxfp4Matrix final : public QuantizedMatrix {
 public:
  Mxfp4Matrix(const std::byte* blocks, const std::byte* scales, std::int64_t rows, std::int64_t columns)
      : QuantizedMatrix(rows, columns, LinearFormat::int8), blocks_(blocks), scales_(scales) {}

  void read_floats(std::int64_t row, std::int64_t first, std::int64_t count, float* out) const override {
    for (std::int64_t column = first; column < first + count; ++column) {
      const int code = code_of(row, column), twice = twice_of_e2m1(code);
      const float value = 0.5F * static_cast<float>(twice) * power_of_e8m0(scale(row, column));
      *out++ = code == 8 ? -value : value;  // -0
    }
  }

  LinearGroup read(std::int64_t row, std::int64_t first, LinearFormat::Kind /*int8*/) const override {
    return mxfp4_group(scale(row, first), [&](int k) { return code_of(row, first + k); });
  }

 private:
  int scale(std::int64_t row, std::int64_t column) const {
    return std::to_integer<int>(scales_[(row * columns() + column) / 32]);
  }
  int code_of(std::int64_t row, std::int64_t column) const {
    const int both = static_cast<int>(blocks_[(row * columns() + column) / 2]);
    return column % 2 == 0 ? both & 15 : both >> 4;
  }

  const std::byte* blocks_;
  const std::byte* scales_;
};

// Whether all zero points are `zero`; those that fill up a word count too.
bool has_one_zero(const IntegerParts& parts, int zero) {
  const Integers& zeros = parts.zeros;
  const int stored = zero - parts.zero;
  if (zeros.data == nullptr) return stored == 0;
  if (zeros.layout == IntegerLayout::bytes) {
    const auto* first = reinterpret_cast<const std::int8_t*>(zeros.data);
    return std::all_of(first, first + zeros.rows * zeros.columns, [=](std::int8_t code) { return code == stored; });
  }
  std::uint32_t expected = 0;
  for (int bit = 0; bit < 32; bit += zeros.bits) expected |= static_cast<std::uint32_t>(stored) << bit;
  const std::int64_t n = 32 / zeros.bits, words = (zeros.rows + n - 1) / n * zeros.columns;
  for (std::int64_t i = 0; i < words; ++i) {
    std::uint32_t word;
    std::memcpy(&word, zeros.data + i * 4, sizeof(word));
    if (word != expected) return false;
  }
  return true;
}

LinearFormat::Kind kind_of(const IntegerParts& parts) {
  const bool neighbours = parts.group_of_column.empty() &&
                          (parts.group_columns % group_columns == 0 || parts.group_columns >= parts.codes.columns);
  if (!neighbours || parts.scales.dtype == DType::float32) return LinearFormat::plain;
  const bool is_signed = parts.codes.layout == IntegerLayout::bytes;
  if (parts.codes.bits == 4) return has_one_zero(parts, nibble_offset) ? LinearFormat::int4 : LinearFormat::int4_zero;
  return has_one_zero(parts, is_signed ? 0 : 128) ? LinearFormat::int8 : LinearFormat::plain;
}

// Groups in the order of their columns are those of their numbers.
void drop_trivial_order(IntegerParts* parts) {
  const std::vector<std::int32_t>& order = parts->group_of_column;
  for (std::size_t column = 0; column < order.size(); ++column) {
    if (order[column] != static_cast<std::int64_t>(column) / parts->group_columns) return;
  }
  parts->group_of_column.clear();
}

}  // namespace

void Integers::read(std::int64_t row, std::int64_t first, std::int64_t count, int* out) const {
  if (bits == 4) return read_words<4>(*this, row, first, count, out);
  read_words<8>(*this, row, first, count, out);
}

SharedQuantizedMatrix make_integer_matrix(IntegerParts parts) {
  drop_trivial_order(&parts);
  const LinearFormat::Kind kind = kind_of(parts);
  return std::make_shared<IntegerMatrix>(std::move(parts), kind);
}

SharedQuantizedMatrix make_fp8_matrix(const Fp8Parts& parts) {
  return std::make_shared<Fp8Matrix>(parts);
}

SharedQuantizedMatrix make_mxfp4_matrix(const std::byte* blocks, const std::byte* scales, std::int64_t rows,
                                        std::int64_t columns) {
  return std::make_shared<Mxfp4Matrix>(blocks, scales, rows, columns);
}

}  // namespace chorus

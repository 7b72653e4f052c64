// Quantising, packing and unpacking of matrices in groups, for all instruction sets, in plain C++.
#include <array>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/check.h"
#include "kernels/linear_groups.h"
#include "kernels/linear_groups_pack.h"

namespace chorus {
namespace {

struct Range {
  float least = 0, most = 0;
  bool is_finite = true;
};
Range range_of(const float* values) {
  Range range;
  std::uint32_t most_bits = 0;
  for (int i = 0; i < group_columns; ++i) {
    most_bits = std::max(most_bits, std::bit_cast<std::uint32_t>(values[i]) & 0x7fffffffU);
    range.least = values[i] < range.least ? values[i] : range.least;
    range.most = values[i] > range.most ? values[i] : range.most;
  }
  range.is_finite = most_bits < 0x7f800000U;
  return range;
}

// q = (value - minimum) / scale in [least, most].
void encode(const float* values, float scale, float minimum, int offset, int least, int most, std::int8_t* codes) {
  const float inverse = scale == 0 ? 0 : 1 / scale;
  for (int i = 0; i < group_columns; ++i) {
    const float q = (values[i] - minimum) * inverse + static_cast<float>(offset);
    const float bounded = std::min(std::max(q, static_cast<float>(least)), static_cast<float>(most));
    // Adding 1.5 * 2^23 rounds to the nearest integer, ties to even.
    codes[i] = static_cast<std::int8_t>((bounded + 12582912.0F) - 12582912.0F);
  }
}

// Of the codes of columns 4 quad .. 4 quad + 3 of a row: where they lie in a record.
std::byte* quad_of(LinearFormat::Kind kind, std::byte* record, std::int64_t row, std::int64_t quad) {
  return record + row / group_half_rows * half_code_bytes(kind) + quad * line_bytes + row % group_half_rows * 4;
}

void put_group(LinearFormat::Kind kind, const LinearGroup& group, std::int64_t row, std::byte* record) {
  if (kind == LinearFormat::int8) {
    for (std::int64_t quad = 0; quad < 8; ++quad) {
      std::memcpy(quad_of(kind, record, row, quad), group.codes + quad * 4, 4);
    }
  } else {
    std::uint8_t pairs[group_columns / 2];
    for (int k = 0; k < group_columns / 2; ++k) {
      pairs[k] = static_cast<std::uint8_t>((group.codes[k] & 15) | (group.codes[k + 16] & 15) << 4);
    }
    for (std::int64_t quad = 0; quad < 4; ++quad) std::memcpy(quad_of(kind, record, row, quad), pairs + quad * 4, 4);
  }
  std::byte* scale = record + scales_offset(kind) + row * 2;
  std::memcpy(scale, &group.scale, 2);
  if (has_minimum(kind)) std::memcpy(scale + line_bytes, &group.minimum, 2);
}

// Codes of a row's group, less what they are stored with.
void read_codes(LinearFormat::Kind kind, const std::byte* record, std::int64_t row, int* codes) {
  auto* begin = const_cast<std::byte*>(record);
  for (int k = 0; k < group_columns; ++k) {
    if (kind == LinearFormat::int8) {
      codes[k] = (static_cast<int>(quad_of(kind, begin, row, k / 4)[k % 4]) ^ 128) - 128;
    } else {
      const int pair = static_cast<int>(quad_of(kind, begin, row, k % 16 / 4)[k % 4]);
      codes[k] = (k < 16 ? pair & 15 : pair >> 4) - code_offset(kind);
    }
  }
}

// `count` elements from `first` on.
void load_floats(const SourceRows& source, std::int64_t first, std::int64_t count, float* out) {
  if (source.dtype == DType::float32) {
    std::memcpy(out, source.data + first * 4, static_cast<std::size_t>(count) * 4);
  } else if (source.dtype == DType::bfloat16) {
    Bfloat16 bits[group_columns];
    std::memcpy(bits, source.data + first * 2, static_cast<std::size_t>(count) * 2);
    for (std::int64_t i = 0; i < count; ++i) out[i] = to_float(bits[i]);
  } else {
    for (std::int64_t i = 0; i < count; ++i) {
      out[i] = load_as_float(source.data, source.dtype, static_cast<std::size_t>(first + i));
    }
  }
}

LinearGroup read_source(LinearFormat::Kind kind, const SourceRows& source, std::int64_t first, std::int64_t count) {
  if (source.groups != nullptr) return source.groups->read(source.row, source.first_column + first, kind);
  alignas(64) float values[group_columns] = {};
  load_floats(source, first, count, values);
  return quantise_group(kind, values, static_cast<int>(count));
}

}  // namespace

LinearGroup quantise_group(LinearFormat::Kind kind, const float* values, int count) {
  alignas(64) float padded[group_columns] = {};
  std::copy_n(values, count, padded);
  const Range range = range_of(padded);
  LinearGroup group;
  if (!range.is_finite) {
    group.scale = float_to_half(std::numeric_limits<float>::quiet_NaN());
    return group;
  }
  const float largest = std::max(-range.least, range.most);
  if (kind == LinearFormat::int8) {
    group.scale = float_to_half(largest / 127);
    encode(padded, half_to_float(group.scale), 0, 0, -127, 127, group.codes);
  } else if (kind == LinearFormat::int4) {
    // The element of the largest magnitude is -8 or, of the other sign, its opposite: the scale may be below 0.
    group.scale = float_to_half((range.most > -range.least ? range.most : range.least) / -8);
    encode(padded, half_to_float(group.scale), 0, 8, 0, 15, group.codes);
  } else if (kind == LinearFormat::int4_zero) {
    group.scale = float_to_half((range.most - range.least) / 15);
    const float scale = half_to_float(group.scale);
    const float zero = scale == 0 ? 0 : std::min(15.0F, std::nearbyint(-range.least / scale));
    group.minimum = float_to_half(-zero);
    encode(padded, scale, 0, static_cast<int>(zero), 0, 15, group.codes);
  } else {
    // Zeros that fill up a group are in no way of its minimum: their x is 0.
    const auto [least, most] = std::minmax_element(padded, padded + count);
    group.minimum = float_to_half(*least);
    group.scale = float_to_half((*most - *least) / 15);
    encode(padded, half_to_float(group.scale), half_to_float(group.minimum), 0, 0, 15, group.codes);
  }
  return group;
}

void pack_group_panel(LinearFormat::Kind kind, const LinearShape& shape, std::int64_t panel, RowSource row_source,
                      const void* context, std::byte* out) {
  const std::int64_t first = panel * group_panel_rows, count = std::min(group_panel_rows, shape.rows - first);
  if (count < group_panel_rows) std::memset(out, 0, static_cast<std::size_t>(group_panel_bytes(kind, shape)));
  const std::int64_t columns = segment_columns(shape), groups = segment_groups(shape);
  for (std::int64_t row = 0; row < count; ++row) {
    const SourceRows source = row_source(context, first + row);
    CHECK(source.groups == nullptr || columns % group_columns == 0, "segments of {} columns cut blocks", columns);
    for (std::int64_t group = 0; group < groups_of(shape); ++group) {
      const std::int64_t begin = group % groups * group_columns;
      const std::int64_t width = std::min<std::int64_t>(group_columns, columns - begin);
      put_group(kind, read_source(kind, source, group / groups * columns + begin, width), row,
                out + group * record_bytes(kind));
    }
  }
}

void unpack_group_row(LinearFormat::Kind kind, const LinearShape& shape, const std::byte* data, std::int64_t row,
                      float* out) {
  const std::byte* panel = data + row / group_panel_rows * group_panel_bytes(kind, shape);
  const std::int64_t columns = segment_columns(shape), groups = segment_groups(shape);
  row %= group_panel_rows;
  for (std::int64_t group = 0; group < groups_of(shape); ++group) {
    const std::byte* record = panel + group * record_bytes(kind);
    const std::byte* scales = record + scales_offset(kind);
    const float scale = load_as_float(scales, DType::float16, static_cast<std::size_t>(row));
    float minimum =
        has_minimum(kind) ? load_as_float(scales + line_bytes, DType::float16, static_cast<std::size_t>(row)) : 0;
    if (kind == LinearFormat::int4_zero) minimum *= scale;
    const std::int64_t width = std::min<std::int64_t>(group_columns, columns - group % groups * group_columns);
    int codes[group_columns];
    read_codes(kind, record, row, codes);
    for (std::int64_t k = 0; k < width; ++k) *out++ = static_cast<float>(codes[k]) * scale + minimum;
  }
}

}  // namespace chorus

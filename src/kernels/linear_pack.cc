// Packing and unpacking, for every instruction set, in plain C++.
#include <algorithm>
#include <array>
#include <cstring>

#include "base/check.h"
#include "kernels/linear.h"
#include "kernels/linear_groups.h"
#include "kernels/linear_groups_pack.h"

namespace chorus {
namespace {

void check_shape(const LinearShape& shape, LinearFormat format) {
  CHECK(shape.rows >= 0 && shape.columns >= 0, "W {} x {}", shape.rows, shape.columns);
  CHECK(shape.segments == 1 || shape.segments == 2 || shape.segments == 4 || shape.segments == 8, "segments {}",
        shape.segments);
  CHECK(shape.columns % shape.segments == 0, "columns {}, segments {}", shape.columns, shape.segments);
  CHECK(format.dtype == DType::float32 || format.dtype == DType::bfloat16,
        "weights are packed as float32 or bfloat16, not {}", name_of(format));
}

// Index of W[row][segment, column] within its panel, in elements.
std::int64_t element_index(LinearLayout layout, DType dtype, const LinearShape& shape, std::int64_t row,
                           std::int64_t segment, std::int64_t column) {
  const std::int64_t rows = panel_rows(layout);
  const std::int64_t segment_begin = segment * packed_segment_columns(layout, shape) * rows;
  const std::int64_t n = row % rows;
  switch (layout) {
    case LinearLayout::rows:
      return segment_begin + column;
    case LinearLayout::matrix:
      return (n * shape.segments + segment) * packed_segment_columns(layout, shape) + column;
    case LinearLayout::lanes8:
    case LinearLayout::lanes16: {
      const std::int64_t lanes = rows / 2;
      return segment_begin + column * rows + (dtype == DType::float32 ? n : n % lanes * 2 + n / lanes);
    }
    case LinearLayout::tiles: {
      const std::int64_t tile = column / tile_columns * 2 + n / tile_rows;
      const std::int64_t pair = column % tile_columns / 2;
      return segment_begin + tile * (tile_bytes / 2) + (pair * tile_rows + n % tile_rows) * 2 + column % 2;
    }
    case LinearLayout::groups:
      break;  // linear_groups_pack.cc
  }
  return 0;
}

template <typename T>
T convert(const std::byte* source, DType dtype, std::int64_t index) {
  const float value = load_as_float(source, dtype, static_cast<std::size_t>(index));
  if constexpr (sizeof(T) == 4) {
    return value;
  } else {
    return to_bfloat16(value);
  }
}

// Columns of a row that are converted at once: the part of a panel they go to stays in the first-level cache.
constexpr std::int64_t chunk_columns = 64;

// Columns [begin, end) of a source row as packed elements.
template <typename T>
void load_chunk(const SourceRows& source, std::int64_t begin, std::int64_t end, T* out) {
  constexpr DType packed = sizeof(T) == 4 ? DType::float32 : DType::bfloat16;
  if (source.dtype == packed) {
    std::memcpy(out, source.data + begin * static_cast<std::int64_t>(sizeof(T)),
                static_cast<std::size_t>(end - begin) * sizeof(T));
    return;
  }
  for (std::int64_t k = begin; k < end; ++k) out[k - begin] = convert<T>(source.data, source.dtype, k);
}

template <typename T>
void pack_panel(LinearLayout layout, const LinearShape& shape, std::int64_t panel, RowSource row_source,
                const void* context, T* out) {
  constexpr DType dtype = sizeof(T) == 4 ? DType::float32 : DType::bfloat16;
  const std::int64_t rows = panel_rows(layout), columns = segment_columns(shape);
  const std::int64_t row_begin = panel * rows, row_end = std::min(row_begin + rows, shape.rows);
  std::array<SourceRows, 32> sources;
  for (std::int64_t row = row_begin; row < row_end; ++row) {
    sources[static_cast<std::size_t>(row - row_begin)] = row_source(context, row);
  }
  // Zero where a row or column is missing.
  if (row_end - row_begin < rows || columns != packed_segment_columns(layout, shape)) {
    std::memset(out, 0, static_cast<std::size_t>(panel_bytes(layout, dtype, shape)));
  }
  // Within a chunk a row's elements are `step` apart (in tiles: two neighbours, then the next pair).
  const std::int64_t step = layout == LinearLayout::rows ? 1 : rows;
  std::array<T, chunk_columns> chunk;
  for (std::int64_t segment = 0; segment < shape.segments; ++segment) {
    for (std::int64_t begin = 0; begin < columns; begin += chunk_columns) {
      const std::int64_t end = std::min(begin + chunk_columns, columns);
      for (std::int64_t row = row_begin; row < row_end; ++row) {
        load_chunk(sources[static_cast<std::size_t>(row - row_begin)], segment * columns + begin,
                   segment * columns + end, chunk.data());
        if (layout == LinearLayout::tiles) {
          for (std::int64_t k = begin; k < end; ++k) {
            out[element_index(layout, dtype, shape, row, segment, k)] = chunk[static_cast<std::size_t>(k - begin)];
          }
        } else {
          T* to = out + element_index(layout, dtype, shape, row, segment, begin);
          for (std::int64_t k = 0; k < end - begin; ++k) to[k * step] = chunk[static_cast<std::size_t>(k)];
        }
      }
    }
  }
}

// Rows of a panel that is as many rows of one matrix, in another order than the source's.
void pack_matrix_rows(const LinearShape& shape, std::int64_t panel, RowSource row_source, const void* context,
                      Bfloat16* out) {
  constexpr LinearLayout layout = LinearLayout::matrix;
  const std::int64_t columns = segment_columns(shape), packed_columns = packed_segment_columns(layout, shape);
  std::memset(out, 0, static_cast<std::size_t>(panel_bytes(layout, DType::bfloat16, shape)));
  const std::int64_t first = panel * matrix_unit, halves = shape.gated_segments == 0 ? 1 : 2;
  const std::int64_t half = shape.rows / halves, width = half / std::max(1, shape.gated_segments);
  const std::int64_t packed_width = round_up(width, matrix_unit);
  for (std::int64_t n = 0; n < matrix_unit; ++n) {
    const std::int64_t at = (first + n) / halves, in_segment = at % packed_width;
    if (in_segment >= width) continue;
    const std::int64_t row = (first + n) % halves * half + at / packed_width * width + in_segment;
    const SourceRows source = row_source(context, row);
    Bfloat16* to = out + n * packed_columns * shape.segments;
    for (int segment = 0; segment < shape.segments; ++segment)
      load_chunk(source, segment * columns, (segment + 1) * columns, to + segment * packed_columns);
  }
}

}  // namespace

LinearShape packed_shape(Isa isa, LinearFormat format, const LinearShape& shape) {
  const LinearLayout layout = linear_layout(isa, format);
  if (layout == LinearLayout::groups) return {shape.rows, shape.columns, shape.segments, 0};
  return {packed_rows(layout, shape), packed_segment_columns(layout, shape) * shape.segments, shape.segments, 0};
}

std::int64_t packed_linear_row(Isa isa, LinearFormat format, const LinearShape& shape, std::int64_t row) {
  return packed_row(linear_layout(isa, format), shape, row);
}

std::size_t packed_linear_bytes(Isa isa, LinearFormat format, const LinearShape& shape) {
  check_shape(shape, format);
  const LinearLayout layout = linear_layout(isa, format);
  const std::int64_t bytes =
      layout == LinearLayout::groups ? group_panel_bytes(format.kind, shape) : panel_bytes(layout, format.dtype, shape);
  return static_cast<std::size_t>(round_up(panel_count(layout, shape) * bytes, 64));
}

std::int64_t linear_panel_rows(Isa isa, LinearFormat format) {
  return panel_rows(linear_layout(isa, format));
}

void pack_linear_panel(Isa isa, LinearFormat format, const LinearShape& shape, std::int64_t panel, RowSource row_source,
                       const void* context, std::byte* out) {
  check_shape(shape, format);
  const LinearLayout layout = linear_layout(isa, format);
  CHECK(panel >= 0 && panel < panel_count(layout, shape), "panel {} of {}", panel, panel_count(layout, shape));
  if (layout == LinearLayout::groups) {
    std::byte* begin = out + panel * group_panel_bytes(format.kind, shape);
    return pack_group_panel(format.kind, shape, panel, row_source, context, begin);
  }
  const DType dtype = format.dtype;
  std::byte* begin = out + panel * panel_bytes(layout, dtype, shape);
  if (layout == LinearLayout::matrix) {
    CHECK(dtype == DType::bfloat16, "GPUs take bfloat16, not {}", name_of(dtype));
    pack_matrix_rows(shape, panel, row_source, context, reinterpret_cast<Bfloat16*>(begin));
  } else if (dtype == DType::float32) {
    pack_panel(layout, shape, panel, row_source, context, reinterpret_cast<float*>(begin));
  } else {
    pack_panel(layout, shape, panel, row_source, context, reinterpret_cast<Bfloat16*>(begin));
  }
}

void unpack_linear_row(const PackedLinear& weight, std::int64_t row, float* out) {
  const LinearShape& shape = weight.shape;
  CHECK(row >= 0 && row < shape.rows, "row {} of {}", row, shape.rows);
  const LinearLayout layout = linear_layout(weight.isa, weight.format);
  if (layout == LinearLayout::groups) return unpack_group_row(weight.format.kind, shape, weight.data, row, out);
  const DType dtype = weight.format.dtype;
  row = packed_row(layout, shape, row);
  const std::byte* panel = weight.data + row / panel_rows(layout) * panel_bytes(layout, dtype, shape);
  const std::int64_t columns = segment_columns(shape);
  for (std::int64_t segment = 0; segment < shape.segments; ++segment) {
    for (std::int64_t k = 0; k < columns; ++k) {
      const std::int64_t index = element_index(layout, dtype, shape, row, segment, k);
      *out++ = load_as_float(panel, dtype, static_cast<std::size_t>(index));
    }
  }
}

}  // namespace chorus

#include "weights/quantized_parts.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <span>

#include "weights/quantized_matrix.h"

namespace chorus {
namespace {

using Shape = std::vector<std::int64_t>;
using Types = std::span<const std::string_view>;

constexpr std::array<std::string_view, 1> words = {"I32"}, bytes = {"U8"}, signed_bytes = {"I8"}, e4m3 = {"F8_E4M3"};
constexpr std::array<std::string_view, 2> sizes = {"I64", "I32"};
constexpr std::array<std::string_view, 3> floats = {"F16", "BF16", "F32"};
constexpr std::array<std::string_view, 4> floats_or_powers = {"F16", "BF16", "F32", "F8_E8M0"};

// The parts of one matrix, by name.
class Parts {
 public:
  Parts(const SafetensorsCheckpoint& files, const std::string& module, const WeightQuantization& quantization)
      : files_(files), module_(module), method_(name_of(quantization.method)) {}

  bool has(const char* part) const { return files_.has(module_ + part); }

  // Of one of the types, with so many dimensions, none of them 0.
  Result<StoredTensor> get(const char* part, Types types, std::size_t dimensions) const {
    const auto tensor = files_.stored(module_ + part);
    if (!tensor) return missing(part);
    const bool fits = std::ranges::find(types, tensor->type) != types.end() && tensor->shape.size() == dimensions &&
                      std::ranges::none_of(tensor->shape, [](std::int64_t size) { return size == 0; });
    if (fits) return *tensor;
    return refuse(part, *tensor, fmt::format("{} with {} dimensions", fmt::join(types, " or "), dimensions));
  }
  Result<StoredTensor> get(const char* part, Types types, const Shape& shape) const {
    const auto tensor = files_.stored(module_ + part);
    if (!tensor) return missing(part);
    if (std::ranges::find(types, tensor->type) != types.end() && tensor->shape == shape) return *tensor;
    return refuse(part, *tensor, fmt::format("{} [{}]", fmt::join(types, " or "), fmt::join(shape, ", ")));
  }
  Error refuse(const char* part, const StoredTensor& tensor, const std::string& accepted) const {
    return fail(ErrorCode::invalid_argument, "{}: tensor {}{} is {} [{}]; {} has {} there", tensor.file, module_, part,
                tensor.type, fmt::join(tensor.shape, ", "), method_, accepted);
  }
  template <typename... Arguments>
  Error wrong(fmt::format_string<Arguments...> text, Arguments&&... arguments) const {
    return fail(ErrorCode::invalid_argument, "{}: {} ({}): {}", files_.source(), module_, method_,
                fmt::format(text, std::forward<Arguments>(arguments)...));
  }
  Error missing(const char* part) const { return wrong("its tensor {}{} is missing", module_, part); }

 private:
  const SafetensorsCheckpoint& files_;
  const std::string& module_;
  const char* method_;
};

DType dtype_of(std::string_view type) {
  return type == "F16" ? DType::float16 : type == "BF16" ? DType::bfloat16 : DType::float32;
}

Scales scales_of(const StoredTensor& tensor, std::int64_t row_step, std::int64_t group_step) {
  return {tensor.data, dtype_of(tensor.type), row_step, group_step};
}

// How many groups of `size` columns there are; 0: one.
Result<std::int64_t> count_groups(const Parts& parts, std::int64_t columns, std::int64_t size) {
  if (size == 0 || size >= columns) return std::int64_t{1};
  if (columns % size == 0) return columns / size;
  return parts.wrong("groups of {} columns do not divide its {}", size, columns);
}

// Which group each column is in, of `groups`.
Result<std::vector<std::int32_t>> read_order(const Parts& parts, const char* part, std::int64_t columns,
                                             std::int64_t groups) {
  CHORUS_TRY(const StoredTensor tensor, parts.get(part, words, Shape{columns}));
  std::vector<std::int32_t> order(static_cast<std::size_t>(columns));
  std::memcpy(order.data(), tensor.data, order.size() * sizeof(order[0]));
  for (std::size_t column = 0; column < order.size(); ++column) {
    if (order[column] >= 0 && order[column] < groups) continue;
    return parts.wrong("{} puts column {} into group {} of {}", part, column, order[column], groups);
  }
  return order;
}

// The scheme that a matrix of these bits and groups may be of, where config.json has one.
Result<WeightScheme> scheme_of(const Parts& parts, const WeightQuantization& quantization, int bits, bool is_float,
                               std::int64_t columns, std::int64_t groups) {
  for (const WeightScheme& scheme : quantization.schemes) {
    const std::int64_t expected = scheme.group_size > 0 ? columns / scheme.group_size : 1;
    if (scheme.bits == bits && scheme.is_float == is_float && expected == groups) return scheme;
  }
  return parts.wrong("{} bits {} in {} groups a row of {} columns are in no weights of config_groups", bits,
                     is_float ? "float" : "int", groups, columns);
}

// The tensor MODULE.weight_scale (or what `part` says) of a matrix without blocks: a scale a group of a row, a row, or
// one for all. Its groups.
struct RowScales {
  Scales scales;
  std::int64_t groups = 1;
};
Result<RowScales> read_row_scales(const Parts& parts, const char* part, std::int64_t rows, std::int64_t columns) {
  for (const Shape& one : {Shape{}, Shape{1}, Shape{1, 1}}) {
    if (const auto tensor = parts.get(part, floats, one)) return RowScales{scales_of(*tensor, 0, 0)};
  }
  if (const auto tensor = parts.get(part, floats, Shape{rows})) return RowScales{scales_of(*tensor, 1, 0)};
  CHORUS_TRY(const StoredTensor tensor, parts.get(part, floats, 2));
  const std::int64_t groups = tensor.shape[1];
  if (tensor.shape[0] != rows || groups > columns) {
    return parts.refuse(part, tensor, fmt::format("a scale for each of {} rows, or for groups of them", rows));
  }
  if (columns % groups != 0) return parts.wrong("{} groups do not divide its {} columns", groups, columns);
  return RowScales{scales_of(tensor, groups, 1), groups};
}

struct MatrixSize {
  std::int64_t rows = 0, columns = 0;
};
Result<MatrixSize> read_shape(const Parts& parts) {
  constexpr std::int64_t size_max = std::int64_t{1} << 40;
  CHORUS_TRY(const StoredTensor tensor, parts.get(".weight_shape", sizes, Shape{2}));
  std::int64_t size[2] = {};
  for (std::size_t i = 0; i < 2; ++i) {
    if (tensor.type == "I64") {
      std::memcpy(&size[i], tensor.data + i * 8, 8);
    } else {
      std::int32_t narrow = 0;
      std::memcpy(&narrow, tensor.data + i * 4, 4);
      size[i] = narrow;
    }
    if (size[i] < 1 || size[i] > size_max) return parts.wrong(".weight_shape has the size {}", size[i]);
  }
  return MatrixSize{size[0], size[1]};
}

constexpr std::int64_t words_for(std::int64_t count, int bits) {
  return (count * bits + 31) / 32;
}

}  // namespace

Result<SharedQuantizedMatrix> read_gptq_or_awq(const SafetensorsCheckpoint& files, const std::string& module,
                                               const WeightQuantization& quantization) {
  const Parts parts(files, module, quantization);
  const bool is_awq = quantization.method == QuantizationMethod::awq;
  const WeightScheme& scheme = quantization.schemes.front();
  const int bits = scheme.bits;
  const std::int64_t n = 32 / bits;
  CHORUS_TRY(const StoredTensor codes, parts.get(".qweight", words, 2));
  const std::int64_t columns = codes.shape[0] * (is_awq ? 1 : n), rows = codes.shape[1] * (is_awq ? n : 1);
  if (rows % n != 0) return parts.wrong("its {} outputs are no multiple of {}, which share a word", rows, n);
  CHORUS_TRY(const std::int64_t groups, count_groups(parts, columns, scheme.group_size));
  CHORUS_TRY(const StoredTensor scales, parts.get(".scales", floats, Shape{groups, rows}));
  CHORUS_TRY(const StoredTensor zeros, parts.get(".qzeros", words, Shape{groups, rows / n}));
  IntegerParts made;
  made.codes = {codes.data, is_awq ? IntegerLayout::interleaved : IntegerLayout::down, bits, rows, columns};
  made.scales = scales_of(scales, 1, rows);
  made.zeros = {zeros.data, is_awq ? IntegerLayout::interleaved : IntegerLayout::across, bits, rows, groups};
  made.zero = quantization.zero_offset;
  made.group_columns = columns / groups;
  if (!is_awq && parts.has(".g_idx")) {
    CHORUS_TRY(made.group_of_column, read_order(parts, ".g_idx", columns, groups));
  }
  return make_integer_matrix(std::move(made));
}

Result<SharedQuantizedMatrix> read_packed(const SafetensorsCheckpoint& files, const std::string& module,
                                          const WeightQuantization& quantization) {
  const Parts parts(files, module, quantization);
  CHORUS_TRY(const StoredTensor codes, parts.get(".weight_packed", words, 2));
  CHORUS_TRY(const MatrixSize size, read_shape(parts));
  const auto [rows, columns] = size;
  const int bits = codes.shape[1] == words_for(columns, 4) ? 4 : 8;
  if (codes.shape != Shape{rows, words_for(columns, bits)}) {
    return parts.refuse(".weight_packed", codes, fmt::format("4 or 8 bits for [{}, {}]", rows, columns));
  }
  CHORUS_TRY(const RowScales scales, read_row_scales(parts, ".weight_scale", rows, columns));
  CHORUS_TRY(const WeightScheme scheme, scheme_of(parts, quantization, bits, false, columns, scales.groups));
  IntegerParts made;
  made.codes = {codes.data, IntegerLayout::along, bits, rows, columns};
  made.scales = scales.scales;
  made.group_columns = columns / scales.groups;
  made.zero = 1 << (bits - 1);
  if (!scheme.is_symmetric || parts.has(".weight_zero_point")) {
    const Shape packed = {words_for(rows, bits), scales.groups};
    CHORUS_TRY(const StoredTensor zeros, parts.get(".weight_zero_point", words, packed));
    made.zeros = {zeros.data, IntegerLayout::stacked, bits, rows, scales.groups};
    made.zero = 0;
  }
  if (parts.has(".weight_g_idx")) {
    CHORUS_TRY(made.group_of_column, read_order(parts, ".weight_g_idx", columns, scales.groups));
  }
  return make_integer_matrix(std::move(made));
}

Result<SharedQuantizedMatrix> read_int8(const SafetensorsCheckpoint& files, const std::string& module,
                                        const WeightQuantization& quantization) {
  const Parts parts(files, module, quantization);
  CHORUS_TRY(const StoredTensor codes, parts.get(".weight", signed_bytes, 2));
  const std::int64_t rows = codes.shape[0], columns = codes.shape[1];
  CHORUS_TRY(const RowScales scales, read_row_scales(parts, ".weight_scale", rows, columns));
  bool has_zeros = parts.has(".weight_zero_point");
  for (const int bits : {8, 4}) {
    const auto scheme = scheme_of(parts, quantization, bits, false, columns, scales.groups);
    if (!scheme.ok() && bits == 4) return scheme.error();
    if (!scheme.ok()) continue;
    has_zeros = has_zeros || !scheme->is_symmetric;
    break;
  }
  IntegerParts made;
  made.codes = {codes.data, IntegerLayout::bytes, 8, rows, columns};
  made.scales = scales.scales;
  made.group_columns = columns / scales.groups;
  if (has_zeros) {
    CHORUS_TRY(const StoredTensor zeros, parts.get(".weight_zero_point", signed_bytes, Shape{rows, scales.groups}));
    made.zeros = {zeros.data, IntegerLayout::bytes, 8, rows, scales.groups};
  }
  return make_integer_matrix(std::move(made));
}

Result<SharedQuantizedMatrix> read_fp8(const SafetensorsCheckpoint& files, const std::string& module,
                                       const WeightQuantization& quantization) {
  const Parts parts(files, module, quantization);
  CHORUS_TRY(const StoredTensor codes, parts.get(".weight", e4m3, 2));
  Fp8Parts made;
  made.codes = codes.data;
  made.rows = made.block_rows = codes.shape[0];
  made.columns = made.block_columns = codes.shape[1];
  const bool is_inverse = quantization.method == QuantizationMethod::fp8 && !parts.has(".weight_scale");
  const char* const part = is_inverse ? ".weight_scale_inv" : ".weight_scale";
  const auto blocks = std::ranges::find_if(quantization.schemes, [](const auto& s) { return s.block_rows > 0; });
  if (blocks == quantization.schemes.end()) {
    CHORUS_TRY(const RowScales scales, read_row_scales(parts, part, made.rows, made.columns));
    CHORUS_TRY_VOID(scheme_of(parts, quantization, 8, true, made.columns, scales.groups));
    made.scales = scales.scales;
    made.block_rows = 1;
    made.block_columns = made.columns / scales.groups;
    return make_fp8_matrix(made);
  }
  made.block_rows = blocks->block_rows;
  made.block_columns = blocks->group_size;
  const std::int64_t down = (made.rows + made.block_rows - 1) / made.block_rows;
  const std::int64_t across = (made.columns + made.block_columns - 1) / made.block_columns;
  CHORUS_TRY(const StoredTensor scales, parts.get(part, floats_or_powers, Shape{down, across}));
  made.scales = scales_of(scales, across, 1);
  made.has_power_scales = scales.type == "F8_E8M0";
  return make_fp8_matrix(made);
}

Result<SharedQuantizedMatrix> read_mxfp4(const SafetensorsCheckpoint& files, const std::string& module) {
  WeightQuantization quantization;
  quantization.method = QuantizationMethod::mxfp4;
  const Parts parts(files, module, quantization);
  CHORUS_TRY(const StoredTensor blocks, parts.get("_blocks", bytes, 4));
  const Shape& shape = blocks.shape;
  if (shape[3] != 16) return parts.refuse("_blocks", blocks, "16 bytes a block");
  CHORUS_TRY(const StoredTensor scales, parts.get("_scales", bytes, Shape{shape[0], shape[1], shape[2]}));
  return make_mxfp4_matrix(blocks.data, scales.data, shape[0] * shape[1], shape[2] * 32);
}

}  // namespace chorus

#include "layers/parameters.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>
#include <unordered_map>

#include "base/check.h"

namespace chorus {
namespace {

constexpr std::size_t alignment = 64;

std::size_t aligned(std::size_t bytes) {
  return (bytes + alignment - 1) / alignment * alignment;
}

// Where each row of a parameter lies in the checkpoint, resolved once per parameter.
struct ResolvedSource {
  std::int64_t first = 0, end = 0;  // rows of the parameter
  const std::byte* data = nullptr;  // of row `first`, at first_column
  DType dtype = DType::float32;
  std::int64_t stride = 0;  // elements
  HeadRows heads;
  std::vector<std::byte> made;  // what `data` is of a transposed tensor, and of a quantised one that is read as floats
  // Where groups are read, in place of the above: the row of the matrix that `first` is.
  SharedQuantizedMatrix groups;
  std::int64_t first_row = 0, first_column = 0;
  int row_step = 1;

  SourceRows row(std::int64_t row) const {
    const std::int64_t from = heads.source_of(row - first);
    if (groups != nullptr) {
      SourceRows rows;
      rows.groups = groups.get();
      rows.row = first_row + from * row_step;
      rows.first_column = first_column;
      return rows;
    }
    return {data + static_cast<std::size_t>(from * stride) * bytes_of(dtype), dtype, stride};
  }
};

struct ResolvedParameter {
  std::vector<ResolvedSource> sources;

  static SourceRows row(const void* context, std::int64_t row) {
    for (const ResolvedSource& source : static_cast<const ResolvedParameter*>(context)->sources) {
      if (row < source.end) return source.row(row);
    }
    CHECK(false, "row {} has no source", row);
  }
};

// Rows as rows of the columns [first_row, first_row + row_count * row_step) of a tensor.
void turn(const ParameterSource& source, std::int64_t columns, ResolvedSource* resolved) {
  const std::size_t element = bytes_of(resolved->dtype);
  const auto stride = source.tensor_shape.back();
  resolved->made.resize(static_cast<std::size_t>(source.row_count * columns) * element);
  std::byte* to = resolved->made.data();
  for (std::int64_t row = 0; row < source.row_count; ++row) {
    for (std::int64_t column = 0; column < columns; ++column, to += element) {
      const std::int64_t at = (source.first_column + column) * stride + source.first_row + row * source.row_step;
      std::memcpy(to, resolved->data + static_cast<std::size_t>(at) * element, element);
    }
  }
  resolved->data = resolved->made.data();
  resolved->stride = columns;
}

// A model that was saved without its head has names without their first part ("h.0.ln_1" for "transformer.h.0.ln_1").
std::string stored_name(const Checkpoint& checkpoint, const std::string& name) {
  if (checkpoint.has(name)) return name;
  std::string rest = name.substr(name.find('.') + 1);
  return checkpoint.has(rest) ? rest : name;
}

// The rows and the columns of a quantised matrix, whose rows are outputs, that a source stands for.
Result<void> place_in(const QuantizedMatrix& matrix, const ParameterSource& source, ResolvedSource* resolved) {
  const std::vector<std::int64_t>& shape = source.tensor_shape;
  resolved->first_row = source.first_row;
  resolved->first_column = source.first_column;
  resolved->row_step = source.row_step;
  if (shape.size() == 3 && source.transposed && shape[1] == matrix.columns() && shape[0] * shape[2] == matrix.rows()) {
    resolved->first_row += source.first_column / shape[1] * shape[2];
    resolved->first_column %= shape[1];
    return {};
  }
  const auto outputs = shape.size() == 2 ? shape[source.transposed ? 1 : 0] : 0;
  if (outputs == matrix.rows() && shape[source.transposed ? 0 : 1] == matrix.columns()) return {};
  return fail(ErrorCode::invalid_argument, "tensor {} is {} {} rows of {}; the model's configuration asks for [{}]{}",
              source.tensor, matrix.plain_dtype() ? "stored as" : "quantised as", matrix.rows(), matrix.columns(),
              fmt::join(shape, ", "), source.transposed ? " with columns first" : "");
}

// Groups, if the parameter can have their numbers.
bool takes_groups(const ParameterSpec& spec, const QuantizedMatrix& matrix, std::int64_t first_column) {
  return spec.format.in_groups() && holds_groups_of(spec.format.kind, matrix.kind()) &&
         spec.shape.columns / spec.shape.segments % group_columns == 0 && first_column % group_columns == 0;
}

Result<void> resolve_quantized(const SharedQuantizedMatrix& matrix, const ParameterSpec& spec,
                               const ParameterSource& source, ThreadPool& pool, ResolvedSource* resolved) {
  CHORUS_TRY_VOID(place_in(*matrix, source, resolved));
  if (takes_groups(spec, *matrix, resolved->first_column)) {
    resolved->groups = matrix;
    return {};
  }
  const std::int64_t columns = spec.shape.columns;
  resolved->made.resize(static_cast<std::size_t>(source.row_count * columns) * sizeof(float));
  auto* values = reinterpret_cast<float*>(resolved->made.data());
  pool.for_range(source.row_count, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      matrix->read_floats(resolved->first_row + row * resolved->row_step, resolved->first_column, columns,
                          values + row * columns);
    }
  });
  resolved->data = resolved->made.data();
  resolved->stride = columns;
  return {};
}

Result<void> resolve_floats(const Checkpoint& checkpoint, const std::string& name, const ParameterSpec& spec,
                            const ParameterSource& source, ResolvedSource* resolved) {
  CHORUS_TRY(const TensorView view, checkpoint.tensor(name, source.tensor_shape));
  resolved->dtype = view.dtype;
  resolved->stride = source.tensor_shape.size() == 1 ? 1 : source.tensor_shape.back();
  const std::int64_t skip = source.transposed ? 0 : source.first_row * resolved->stride + source.first_column;
  resolved->data = view.data + static_cast<std::size_t>(skip) * bytes_of(view.dtype);
  if (source.transposed) turn(source, spec.shape.columns, resolved);
  return {};
}

Result<ResolvedParameter> resolve(const Checkpoint& checkpoint, const ParameterSpec& spec, ThreadPool& pool) {
  ResolvedParameter resolved;
  std::int64_t first = 0;
  for (const ParameterSource& source : spec.sources) {
    ResolvedSource& added = resolved.sources.emplace_back();
    added.first = first;
    added.end = first += source.row_count;
    added.heads = source.heads;
    const std::string name = stored_name(checkpoint, source.tensor);
    CHORUS_TRY(const SharedQuantizedMatrix matrix, checkpoint.quantized(name));
    if (matrix != nullptr) {
      CHORUS_TRY_VOID(resolve_quantized(matrix, spec, source, pool, &added));
    } else {
      CHORUS_TRY_VOID(resolve_floats(checkpoint, name, spec, source, &added));
    }
  }
  return resolved;
}

// After which parameter nothing is read of a tensor: experts may share one.
std::unordered_map<std::string, std::size_t> last_uses(const std::vector<ParameterSpec>& specs) {
  std::unordered_map<std::string, std::size_t> last;
  for (std::size_t i = 0; i < specs.size(); ++i) {
    for (const ParameterSource& source : specs[i].sources) last[source.tensor] = i;
  }
  return last;
}

void copy_row(const SourceRows& source, std::int64_t columns, DType dtype, std::byte* out) {
  if (source.dtype == dtype) {
    std::memcpy(out, source.data, static_cast<std::size_t>(columns) * bytes_of(dtype));
    return;
  }
  for (std::int64_t i = 0; i < columns; ++i) {
    const float value = load_as_float(source.data, source.dtype, static_cast<std::size_t>(i));
    if (dtype == DType::float32) {
      std::memcpy(out + i * 4, &value, 4);
    } else {
      const Bfloat16 rounded = to_bfloat16(value);
      std::memcpy(out + i * 2, &rounded, 2);
    }
  }
}

// A vector's elements lie as the rows of a matrix of `isa` and `dtype` do.
void pack_rows(Isa isa, DType dtype, const ParameterSpec& spec, const ResolvedParameter& resolved, std::int64_t begin,
               std::int64_t end, std::byte* out) {
  const std::size_t row_bytes = static_cast<std::size_t>(spec.shape.columns) * bytes_of(spec.format.dtype);
  for (std::int64_t row = begin; row < end && row < resolved.sources.back().end; ++row) {
    const std::int64_t place =
        spec.kind == ParameterKind::vector ? packed_linear_row(isa, dtype, spec.shape, row) : row;
    std::byte* to = out + static_cast<std::size_t>(place) * row_bytes;
    copy_row(ResolvedParameter::row(&resolved, row), spec.shape.columns, spec.format.dtype, to);
    if (spec.added != 0) {
      float value = 0;
      std::memcpy(&value, to, sizeof value);
      value += spec.added;
      std::memcpy(to, &value, sizeof value);
    }
  }
}

void pack_panels(Isa isa, const ParameterSpec& spec, const ResolvedParameter& resolved, ThreadPool& pool,
                 std::byte* out) {
  CHECK(resolved.sources.back().end == spec.shape.rows, "a packed matrix has all its rows");
  const std::int64_t panel_rows = linear_panel_rows(isa, spec.format);
  const std::int64_t rows = packed_shape(isa, spec.format, spec.shape).rows;
  const std::int64_t panels = (rows + panel_rows - 1) / panel_rows;
  pool.for_range(panels, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t panel = begin; panel < end; ++panel) {
      pack_linear_panel(isa, spec.format, spec.shape, panel, &ResolvedParameter::row, &resolved, out);
    }
  });
}

}  // namespace

std::int64_t HeadRows::source_of(std::int64_t row) const {
  if (head_dim == 0) return row;
  const std::int64_t head = row / head_dim * head_dim, at = row % head_dim, half = rotary_dim / 2;
  if (at < rotary_dim) return head + first + (pairs ? at % half * 2 + at / half : at);
  return head + (at - rotary_dim < first ? at - rotary_dim : at);
}

std::int64_t HeadRows::packed_of(std::int64_t row) const {
  if (head_dim == 0) return row;
  const std::int64_t head = row / head_dim * head_dim, at = row % head_dim, half = rotary_dim / 2;
  if (at < first) return head + at + rotary_dim;
  if (at >= first + rotary_dim) return row;
  const std::int64_t turns = at - first;
  return head + (pairs ? turns % 2 * half + turns / 2 : turns);
}

ParameterId Parameters::add(ParameterSpec spec) {
  std::int64_t rows = 0;
  for (const ParameterSource& source : spec.sources) rows += source.row_count;
  CHECK(rows <= spec.shape.rows && rows > 0, "{} source rows for {} rows", rows, spec.shape.rows);
  CHECK(spec.shape.columns % spec.shape.segments == 0, "{} columns in {} segments", spec.shape.columns,
        spec.shape.segments);
  spec.offset = bytes_;
  bytes_ += aligned(spec.bytes);
  specs_.push_back(std::move(spec));
  return specs_.size() - 1;
}

ParameterId Parameters::add_linear(const LinearShape& shape, std::vector<ParameterSource> sources) {
  const LinearFormat format = formats_.of(shape, sources, dtype_);
  return add_linear(format, shape, std::move(sources));
}

ParameterId Parameters::add_output(const LinearShape& shape, std::vector<ParameterSource> sources) {
  const LinearFormat format = formats_.of_output(shape, sources, dtype_);
  return add_linear(format, shape, std::move(sources));
}

ParameterId Parameters::add_linear(const LinearShape& shape, std::vector<ParameterSource> sources, DType dtype) {
  return add_linear(LinearFormat(dtype), shape, std::move(sources));
}

ParameterId Parameters::add_linear(LinearFormat format, const LinearShape& shape,
                                   std::vector<ParameterSource> sources) {
  return add({ParameterKind::linear, format, shape, std::move(sources), 0, packed_linear_bytes(isa_, format, shape)});
}

ParameterId Parameters::add_table(std::int64_t rows, std::int64_t columns, std::vector<ParameterSource> sources) {
  const std::size_t bytes = static_cast<std::size_t>(rows * columns) * bytes_of(dtype_);
  return add({ParameterKind::table, dtype_, {rows, columns, 1}, std::move(sources), 0, bytes});
}

ParameterId Parameters::add_vector(std::int64_t length, std::vector<ParameterSource> sources, int gated_segments,
                                   float added) {
  const LinearShape shape{length, 1, 1, gated_segments};
  // As long as the rows of a matrix, some of which only fill up.
  const auto packed = static_cast<std::size_t>(packed_shape(isa_, dtype_, shape).rows);
  return add({ParameterKind::vector, DType::float32, shape, std::move(sources), 0, packed * 4, added});
}

Result<void> Parameters::pack(const Checkpoint& checkpoint, ThreadPool& pool, std::byte* arena,
                              const std::function<bool(std::size_t)>& goes_on) const {
  const std::uint64_t hash = layout_hash();
  std::memcpy(arena, &hash, sizeof hash);
  const auto last = last_uses(specs_);
  for (std::size_t i = 0; i < specs_.size(); ++i) {
    const ParameterSpec& spec = specs_[i];
    if (goes_on && !goes_on(spec.offset)) return fail(ErrorCode::cancelled, "interrupted");
    CHORUS_TRY(const ResolvedParameter resolved, resolve(checkpoint, spec, pool));
    if (spec.kind == ParameterKind::linear) {
      pack_panels(isa_, spec, resolved, pool, arena + spec.offset);
    } else {
      pool.for_range(spec.shape.rows, [&](std::int64_t begin, std::int64_t end) {
        pack_rows(isa_, dtype_, spec, resolved, begin, end, arena + spec.offset);
      });
    }
    for (const ParameterSource& source : spec.sources) {
      if (last.at(source.tensor) == i) checkpoint.release(source.tensor);
    }
  }
  return {};
}

Result<void> Parameters::bind(const std::byte* arena, std::size_t bytes) {
  std::uint64_t hash = 0;
  if (bytes >= sizeof hash) std::memcpy(&hash, arena, sizeof hash);
  if (bytes != bytes_ || hash != layout_hash()) {
    return fail(ErrorCode::invalid_argument,
                "the shared weights ({} bytes) were packed for another model, dtype or instruction set than this "
                "engine's ({} bytes): "
                "start all processes with the same options",
                bytes, bytes_);
  }
  arena_ = data_ = arena;
  return {};
}

Result<void> Parameters::move_to(Device& device) {
  if (device.kind() == DeviceKind::cpu) return {};
  auto memory = device.allocate(bytes_);
  if (!memory.ok()) return fail(memory.error().code, "no memory for the weights: {}", memory.error().message);
  device.copy_in(*memory, arena_, bytes_);
  data_ = *memory;
  return device.finish();
}

PackedLinear Parameters::linear(ParameterId id) const {
  const ParameterSpec& spec = specs_[id];
  CHECK(arena_ != nullptr && spec.kind == ParameterKind::linear, "parameter {} is no bound linear", id);
  return {spec.shape, spec.format, isa_, data_ + spec.offset};
}

const std::byte* Parameters::table(ParameterId id) const {
  CHECK(arena_ != nullptr && specs_[id].kind == ParameterKind::table, "parameter {} is no bound table", id);
  return data_ + specs_[id].offset;
}

const float* Parameters::vector(ParameterId id) const {
  CHECK(arena_ != nullptr && specs_[id].kind == ParameterKind::vector, "parameter {} is no bound vector", id);
  return reinterpret_cast<const float*>(data_ + specs_[id].offset);
}

std::vector<NamedParameter> Parameters::named_parameters() const {
  std::vector<NamedParameter> named;
  for (ParameterId id = 0; id < specs_.size(); ++id) {
    const ParameterSpec& spec = specs_[id];
    std::int64_t row = 0;
    for (const ParameterSource& source : spec.sources) {
      named.push_back({source.tensor, source.tensor_shape, source.first_row, source.row_count, source.first_column,
                       spec.shape.columns, spec.kind, spec.format, id, row,
                       arena_ != nullptr ? arena_ + spec.offset : nullptr, source.heads, source.transposed});
      row += source.row_count;
    }
  }
  return named;
}

void Parameters::read_row(const NamedParameter& parameter, std::int64_t row, float* out) const {
  CHECK(row >= 0 && row < parameter.row_count, "row {} of {} of {}", row, parameter.row_count, parameter.name);
  const std::int64_t packed_row = parameter.parameter_row + parameter.heads.packed_of(row);
  if (parameter.kind == ParameterKind::linear) {
    PackedLinear weight = linear(parameter.parameter);
    weight.data = parameter.data;
    unpack_linear_row(weight, packed_row, out);
    return;
  }
  CHECK(arena_ != nullptr, "{} is not bound", parameter.name);
  const std::int64_t columns = parameter.column_count;
  const ParameterSpec& spec = specs_[parameter.parameter];
  const std::byte* plain = arena_ + spec.offset;
  const std::int64_t place =
      parameter.kind == ParameterKind::vector ? packed_linear_row(isa_, dtype_, spec.shape, packed_row) : packed_row;
  for (std::int64_t i = 0; i < columns; ++i) {
    out[i] = load_as_float(plain, parameter.format.dtype, static_cast<std::size_t>(place * columns + i));
  }
}

// FNV-1a over everything that decides where a byte lies and what it means.
std::uint64_t Parameters::layout_hash() const {
  std::uint64_t hash = 0xcbf29ce484222325U;
  const auto mix = [&hash](std::uint64_t value) {
    for (int i = 0; i < 8; ++i) hash = (hash ^ ((value >> (8 * i)) & 0xff)) * 0x100000001b3U;
  };
  mix(static_cast<std::uint64_t>(isa_));
  for (const ParameterSpec& spec : specs_) {
    mix(static_cast<std::uint64_t>(spec.kind));
    mix(static_cast<std::uint64_t>(spec.format.kind));
    mix(static_cast<std::uint64_t>(spec.format.dtype));
    mix(static_cast<std::uint64_t>(spec.shape.rows));
    mix(static_cast<std::uint64_t>(spec.shape.columns));
    mix(static_cast<std::uint64_t>(spec.shape.segments));
    mix(static_cast<std::uint64_t>(spec.shape.gated_segments));
    mix(spec.offset);
    for (const ParameterSource& source : spec.sources) {
      for (const char c : source.tensor) mix(static_cast<unsigned char>(c));
      mix(static_cast<std::uint64_t>(source.first_row));
      mix(static_cast<std::uint64_t>(source.first_column));
    }
  }
  return hash;
}

}  // namespace chorus

// What a model keeps in the weight arena, and where. A model is constructed twice from the same configuration: once
// where the weights are packed (nothing is bound, only declared) and once in each engine (bound to the shared arena).
// Both times every layer declares its parameters in the same order, so both sides compute the same layout; a hash of it
// is kept at the arena's start and checked.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/result.h"
#include "kernels/linear.h"
#include "kernels/thread_pool.h"
#include "layers/linear_formats.h"
#include "tensor/device.h"
#include "tensor/dtype.h"
#include "weights/checkpoint.h"

namespace chorus {

// Rows come in heads of so many, of which rows [first, first + rotary_dim) turn. They are packed in front of the others
// and as halves (i, i + rotary_dim / 2), however the checkpoint has them: a product of a query and a key does not ask
// for the order of its terms, and one kernel turns all.
struct HeadRows {
  int head_dim = 0;  // 0: rows stay as they are
  int first = 0, rotary_dim = 0;
  bool pairs = true;  // in the checkpoint neighbours turn together (2 i, 2 i + 1)

  std::int64_t source_of(std::int64_t row) const;  // a row as packed -> its row in the checkpoint
  std::int64_t packed_of(std::int64_t row) const;  // the other way
};

// Rows [first_row, first_row + row_count) of a checkpoint tensor, columns from first_column on. A 1-D tensor is a
// matrix of one column.
struct ParameterSource {
  std::string tensor;
  std::vector<std::int64_t> tensor_shape;  // as in the checkpoint; the last dimension is the columns
  std::int64_t first_row = 0;
  std::int64_t row_count = 0;
  std::int64_t first_column = 0;
  HeadRows heads = {};
  // The tensor is [columns, rows]: what is called a row here is one of its columns, of which every `row_step`-th
  // counts.
  bool transposed = false;
  int row_step = 1;
};

enum class ParameterKind : std::uint8_t {
  linear,  // packed for an instruction set
  table,   // plain rows in `dtype`: an embedding that is looked up
  vector,  // float32: norm weights, biases
};

struct ParameterSpec {
  ParameterKind kind = ParameterKind::linear;
  LinearFormat format;  // a table's and a vector's: their dtype
  LinearShape shape;    // vector: rows = length, columns = 1
  std::vector<ParameterSource>
      sources;             // stacked: their rows in order make up the parameter's rows; missing ones are zero
  std::size_t offset = 0;  // in the arena
  std::size_t bytes = 0;
  float added = 0;  // to each element of a vector
};

using ParameterId = std::size_t;

// A checkpoint tensor, or the slice of it that this worker has: rows [first_row, first_row + row_count), columns
// [first_column, first_column + column_count). Stacked tensors (q, k and v) share one parameter and have an entry each.
struct NamedParameter {
  std::string name;                 // as in the checkpoint
  std::vector<std::int64_t> shape;  // of the whole tensor
  std::int64_t first_row = 0, row_count = 0;
  std::int64_t first_column = 0, column_count = 0;  // 1-D tensors: one column
  ParameterKind kind = ParameterKind::linear;
  LinearFormat format;             // as packed
  ParameterId parameter = 0;       // where it is packed
  std::int64_t parameter_row = 0;  // of first_row in there
  // The whole packed parameter, as its kind says; null before bind(). Parameters::read_row() unpacks.
  const std::byte* data = nullptr;
  HeadRows heads = {};      // rows of heads are packed in another order, which read_row() undoes
  bool transposed = false;  // `shape` is the other way round; rows and columns here are those of the product
};

class Parameters {
 public:
  Parameters(Isa isa, DType dtype, LinearFormats formats = {})
      : isa_(isa), dtype_(dtype), formats_(std::move(formats)) {}

  Isa isa() const { return isa_; }
  DType dtype() const { return dtype_; }

  // In the format that is the matrix's by `formats`; with `dtype` as floats of it (a router stays in float32).
  ParameterId add_linear(const LinearShape& shape, std::vector<ParameterSource> sources);
  ParameterId add_linear(const LinearShape& shape, std::vector<ParameterSource> sources, DType dtype);
  // The matrix that gives the logits.
  ParameterId add_output(const LinearShape& shape, std::vector<ParameterSource> sources);
  ParameterId add_table(std::int64_t rows, std::int64_t columns, std::vector<ParameterSource> sources);
  // `gated_segments`: as in LinearShape, of the bias of such a matrix: it is packed as its rows are.
  // `added`: to each element.
  ParameterId add_vector(std::int64_t length, std::vector<ParameterSource> sources, int gated_segments = 0,
                         float added = 0);

  const std::vector<ParameterSpec>& specs() const { return specs_; }
  // Bytes of the whole arena, its head included.
  std::size_t arena_bytes() const { return bytes_; }

  // Reads every source from the checkpoint and writes the packed form to `arena` (arena_bytes() long, zeroed). Tells
  // `goes_on` (may be empty) before each parameter how many bytes are packed; false ends it with ErrorCode::cancelled.
  Result<void> pack(const Checkpoint& checkpoint, ThreadPool& pool, std::byte* arena,
                    const std::function<bool(std::size_t)>& goes_on = {}) const;
  // Binds to a packed arena; refuses one of another layout.
  Result<void> bind(const std::byte* arena, std::size_t bytes);

  // For a device that cannot read the arena: copies it to the device's memory; views are then of that. Errors:
  // resource_exhausted.
  Result<void> move_to(Device& device);

  // Views; only after bind(). They live as long as the arena, or the device.
  PackedLinear linear(ParameterId id) const;
  const std::byte* table(ParameterId id) const;
  const float* vector(ParameterId id) const;

  // Everything that was declared, by checkpoint tensor, in order of declaration. A view: `data` lives as long as the
  // arena.
  std::vector<NamedParameter> named_parameters() const;
  // Row `row` in [0, row_count) of the slice, as the kernels read it: column_count floats. Only after bind().
  void read_row(const NamedParameter& parameter, std::int64_t row, float* out) const;

 private:
  ParameterId add(ParameterSpec spec);
  ParameterId add_linear(LinearFormat format, const LinearShape& shape, std::vector<ParameterSource> sources);
  std::uint64_t layout_hash() const;

  Isa isa_;
  DType dtype_;
  LinearFormats formats_;
  std::vector<ParameterSpec> specs_;
  std::size_t bytes_ = 64;  // the head: the layout's hash
  const std::byte* arena_ = nullptr;
  const std::byte* data_ = nullptr;  // arena_, or its copy on a device
};

}  // namespace chorus

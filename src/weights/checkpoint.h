// A model's tensors as they lie on disk: Hugging Face safetensors, single (model.safetensors) or sharded
// (model.safetensors.index.json), mapped and never copied; those of a GGUF file; or dummy ones made from a seed.
// Format: https://huggingface.co/docs/safetensors (8-byte little-endian header length, JSON header, data).
//
// The files are mapped read-only and unmapped with the Checkpoint. A file that is cut short by someone else while it is
// mapped cannot be caught: reading past its new end is a SIGBUS and the end of the process.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "config/model_config.h"
#include "tensor/linear_format.h"

namespace chorus {

struct TensorView {
  const std::byte* data = nullptr;  // valid while the Checkpoint lives; no alignment is promised
  DType dtype = DType::float32;
  std::vector<std::int64_t> shape;
  std::string file;  // where it lies, for messages
};

// A matrix that the checkpoint has quantised, or in another order than the tensor of its name would have, in one form
// for all formats. Its rows are outputs and its columns what is summed over, also where the tensor of its name would
// lie the other way round; of several experts in one tensor the rows follow each other. Lives as long as the
// Checkpoint. Any number of threads.
class QuantizedMatrix : public LinearGroups {
 public:
  QuantizedMatrix(std::int64_t rows, std::int64_t columns, LinearFormat::Kind kind,
                  std::optional<DType> plain_dtype = std::nullopt)
      : rows_(rows), columns_(columns), kind_(kind), plain_dtype_(plain_dtype) {}
  std::int64_t rows() const { return rows_; }
  std::int64_t columns() const { return columns_; }
  // The format in groups that has its numbers, as which read() gives them; plain: there is none.
  LinearFormat::Kind kind() const { return kind_; }
  // Of elements that are not quantised, only in another order.
  std::optional<DType> plain_dtype() const { return plain_dtype_; }
  // `count` elements of a row from column `first` on, exactly as the format defines them, in float32 arithmetic.
  virtual void read_floats(std::int64_t row, std::int64_t first, std::int64_t count, float* out) const = 0;

 private:
  std::int64_t rows_, columns_;
  LinearFormat::Kind kind_;
  std::optional<DType> plain_dtype_;
};
using SharedQuantizedMatrix = std::shared_ptr<const QuantizedMatrix>;

class Checkpoint {
 public:
  virtual ~Checkpoint() = default;
  virtual bool has(const std::string& name) const = 0;
  // The tensor, whose shape must be `shape`; a quantised one as float32. Errors: missing (file or index, name, nearest
  // name), misshapen (both shapes), an element type that no weight has here (F64, I8, F8_E4M3, ...: only F32, BF16 and
  // F16 are weights), those of quantized(). Thread-safe.
  virtual Result<TensorView> tensor(const std::string& name, const std::vector<std::int64_t>& shape) const = 0;
  // The same as it is quantised or lies, rows first; null: it lies as tensor() gives it. Errors: parts of it that are
  // missing or do not fit each other. Thread-safe.
  virtual Result<SharedQuantizedMatrix> quantized(const std::string& /*name*/) const { return SharedQuantizedMatrix(); }
  virtual std::vector<std::string> names() const = 0;  // of the file, ascending; empty for a dummy checkpoint
  virtual std::size_t files() const = 0;               // that it was found in
  // Tells one checkpoint from another, wherever it lies: of all names, element types and shapes, and a sample of each
  // tensor's bytes.
  virtual std::string digest() const = 0;
  // A hint: the views of `name` are read no more, so that its memory may go before the Checkpoint does. A dummy
  // tensor's views end here; a mapped one's stay valid. Thread-safe.
  virtual void release(const std::string& name) const = 0;
};

// Reads and checks the headers of every shard (model.safetensors if it is there, else the index). Refused, with file,
// tensor and reason: header length past the file or over 100 MiB, invalid or too deep JSON, duplicate names, unknown
// dtype, offsets that overlap, leave a hole, overflow or pass the end, a shape whose product is not the byte count, an
// index that escapes the directory. What an index names and its shard lacks is an error of tensor(). `tied_head`: a
// file that has only one of the embedding and the output head gives it under both names. `quantization`: of the
// model's configuration; matrices have the names that they would have without it (NAME.weight for NAME.qweight).
Result<std::unique_ptr<Checkpoint>> open_checkpoint(const std::string& directory, bool tied_head = false,
                                                    const WeightQuantization& quantization = {});

// What the files of a folder have quantised, for ModelConfig::stored_formats; a folder without weights has nothing.
Result<std::vector<StoredFormat>> read_stored_formats(const std::string& directory,
                                                      const WeightQuantization& quantization);

// Seeded random weights of any shape: a matrix element is a function of (seed, name, index), the same in every dtype up
// to its rounding; 1-D tensors whose name contains "norm" and "weight" are 1, those whose name ends in "bias" are 0,
// all others uniform with standard deviation 0.02. Elements are made in `dtype`. has() is true of every name. tensor()
// makes the bytes and keeps them until release().
std::unique_ptr<Checkpoint> make_dummy_checkpoint(std::uint64_t seed, DType dtype);

// The elements [first, first + count) of such a uniform tensor, without keeping anything. `out`: count elements of
// `dtype`.
void fill_dummy(std::uint64_t seed, const std::string& name, DType dtype, std::uint64_t first, std::uint64_t count,
                std::byte* out);

}  // namespace chorus

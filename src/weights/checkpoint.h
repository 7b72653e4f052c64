// A model's tensors as they lie on disk: Hugging Face safetensors, single (model.safetensors) or sharded
// (model.safetensors.index.json), mapped and never copied; or dummy ones made from a seed.
// Format: https://huggingface.co/docs/safetensors (8-byte little-endian header length, JSON header, data).
//
// The files are mapped read-only and unmapped with the Checkpoint. A file that is cut short by someone else while it is
// mapped cannot be caught: reading past its new end is a SIGBUS and the end of the process.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "tensor/linear_format.h"

namespace chorus {

struct TensorView {
  const std::byte* data = nullptr;  // valid while the Checkpoint lives; no alignment is promised
  DType dtype = DType::float32;
  std::vector<std::int64_t> shape;
  std::string file;  // where it lies, for messages
};

// A matrix in blocks of 32 columns: `read` gives each as a group of codes, from the bytes of its row.
struct GroupedTensor {
  LinearFormat::Kind kind = LinearFormat::plain;
  std::vector<std::int64_t> shape;
  ReadLinearGroup read = nullptr;
  std::function<const std::byte*(std::int64_t row)> row;  // valid while the Checkpoint lives
};

class Checkpoint {
 public:
  virtual ~Checkpoint() = default;
  virtual bool has(const std::string& name) const = 0;
  // The tensor, whose shape must be `shape`. Errors: missing (file or index, name, nearest name), misshapen (both
  // shapes), an element type that no weight has here (F64, I8, F8_E4M3, ...: only F32, BF16 and F16 are weights).
  // Thread-safe.
  virtual Result<TensorView> tensor(const std::string& name, const std::vector<std::int64_t>& shape) const = 0;
  // The same in its own blocks; nullopt: it lies in none that can be had so. Thread-safe.
  virtual std::optional<GroupedTensor> grouped(const std::string& /*name*/) const { return std::nullopt; }
  virtual std::vector<std::string> names() const = 0;  // of the file, ascending; empty for a dummy checkpoint
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
// file that has only one of the embedding and the output head gives it under both names.
Result<std::unique_ptr<Checkpoint>> open_checkpoint(const std::string& directory, bool tied_head = false);

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

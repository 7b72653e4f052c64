// A model's tensors as they lie on disk: Hugging Face safetensors, single (model.safetensors) or sharded
// (model.safetensors.index.json), mapped and never copied; or dummy ones made from a seed.
// Format: https://huggingface.co/docs/safetensors (8-byte little-endian header length, JSON header, data).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "tensor/dtype.h"

namespace chorus {

struct TensorView {
  const std::byte* data = nullptr;      // valid while the Checkpoint lives; no alignment is promised
  DType dtype = DType::float32;
  std::vector<std::int64_t> shape;
  std::string file;                     // where it lies, for messages
};

class Checkpoint {
 public:
  virtual ~Checkpoint() = default;
  virtual bool has(const std::string& name) const = 0;
  // The tensor, whose shape must be `shape`. Errors: missing (file or index, name, nearest name), misshapen (both shapes).
  // Thread-safe.
  virtual Result<TensorView> tensor(const std::string& name, const std::vector<std::int64_t>& shape) const = 0;
  virtual std::vector<std::string> names() const = 0;   // ascending; empty for a dummy checkpoint
};

// Reads and checks the headers of every shard. Refused, with file, tensor and reason: header length past the file or over
// 100 MiB, invalid or too deep JSON, duplicate names, unknown dtype, offsets that overlap, leave a hole, overflow or pass the
// end, a shape whose product is not the byte count, an index that names a missing shard or tensor or escapes the directory.
Result<std::unique_ptr<Checkpoint>> open_checkpoint(const std::string& directory);

// Seeded random weights of any shape: a matrix element is a function of (seed, name, index); 1-D tensors whose name contains
// "norm" and "weight" are 1, biases 0, matrices uniform with standard deviation 0.02. Elements are made in `dtype`. tensor()
// makes and keeps the bytes. fill() makes part of one without keeping it.
std::unique_ptr<Checkpoint> make_dummy_checkpoint(std::uint64_t seed, DType dtype);

}  // namespace chorus

// How GGUF stores the elements of a tensor: plain, or in blocks of quantised ones.
// Layouts: https://github.com/ggml-org/ggml, docs/gguf.md and src/ggml-common.h (block_q4_0, ...), the values that they
// stand for: ggml-quants.c, dequantize_row_*.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "tensor/linear_format.h"

namespace chorus {

// Of the block that begins at column `first` of a row, as `kind` has it.
using ReadGgufGroup = LinearGroup (*)(const std::byte* row, std::int64_t first, LinearFormat::Kind kind);

struct GgufTensorType {
  std::uint32_t id;  // as in the file
  const char* name;
  std::int64_t block_elements;  // neighbours within a row; a row is whole blocks
  std::size_t block_bytes;
  std::optional<DType> dtype = std::nullopt;  // what a plain one is here
  // A block's elements; `block` needs no alignment. The arithmetic is float32: scale * integer + minimum.
  void (*to_float)(const std::byte* block, float* elements) = nullptr;
  // How its matrices are packed where kernels compute in groups: as they are where `read_group` gives a block's own
  // codes, else through their floats.
  LinearFormat::Kind kind = LinearFormat::plain;
  ReadGgufGroup read_group = nullptr;
  // Whether Chorus can read it: the others are known by size alone.
  bool is_readable() const { return dtype.has_value() || to_float != nullptr; }
};

// nullptr: no type has this id.
const GgufTensorType* find_gguf_tensor_type(std::uint32_t id);

}  // namespace chorus

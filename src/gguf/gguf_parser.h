// The head of one GGUF file, checked against the file's bytes. Pure: bytes in, views of them out.
#pragma once

#include <cstddef>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "gguf/gguf_file.h"

namespace chorus {

// The types of metadata, as numbered in the file.
enum class GgufValueType : std::uint32_t { u8, i8, u16, i16, u32, i32, f32, flag, text, array, u64, i64, f64 };

// Bytes of a value of a fixed size; 0 for texts and arrays. Precondition: type <= f64.
std::size_t bytes_of(GgufValueType type);

struct GgufHead {
  std::vector<std::pair<std::string_view, GgufFile::Value>> values;
  std::vector<GgufTensor> tensors;  // their shard is 0
};

// Errors say what is wrong and where: the byte, the key or the tensor.
Result<GgufHead> parse_gguf_head(std::span<const std::byte> file);

// The text at `*at`, which goes on behind it. Only for what parse_gguf_head() has walked over.
std::string_view next_gguf_text(const std::byte** at);

}  // namespace chorus

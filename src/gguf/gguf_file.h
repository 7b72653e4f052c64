// A model in one file: GGUF (versions 2 and 3), or several files of it that gguf-split made. Metadata by key, tensors
// by name; mapped and never copied. Format: https://github.com/ggml-org/ggml, docs/gguf.md.
//
// Nothing of the file is trusted: every count, size, offset and string is checked against the bytes that are there
// before it is used, in arithmetic that cannot wrap.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/mapped_file.h"
#include "base/result.h"
#include "gguf/tensor_type.h"

namespace chorus {

// Whether a MODEL that a user names is a GGUF file and not a folder: by its name.
bool is_gguf(std::string_view model);

struct GgufTensor {
  std::string_view name;
  const GgufTensorType* type = nullptr;
  std::vector<std::int64_t> shape;  // as elsewhere here: rows before columns, the reverse of the file's order
  const std::byte* data = nullptr;  // no alignment is promised
  std::size_t bytes = 0;
  std::size_t shard = 0;  // which of the files
};

// Immutable; views of it are valid while it lives. Any number of threads may read.
class GgufFile {
 public:
  // `path`: the file, or the first of several (NAME-00001-of-00003.gguf). Errors name the file, and the key or tensor:
  // what is not GGUF (a Git LFS pointer by name), an unknown version, a byte order that is not ours, anything that
  // reaches past the file's end, unknown types, duplicate names, tensors that overlap, a part that is missing.
  static Result<GgufFile> open(const std::string& path);

  // Metadata. nullopt or empty: there is no such key, or its value is of another kind. An integer of any width; a
  // number may be an integer.
  std::optional<std::string_view> text(std::string_view key) const;
  std::optional<std::int64_t> integer(std::string_view key) const;  // nullopt above 2^63 - 1, too
  std::optional<double> number(std::string_view key) const;
  std::optional<bool> flag(std::string_view key) const;
  std::vector<std::string_view> texts(std::string_view key) const;
  std::vector<double> numbers(std::string_view key) const;  // of an array of numbers or flags

  const std::vector<GgufTensor>& tensors() const { return tensors_; }
  const GgufTensor* tensor(std::string_view name) const;
  const std::string& path() const { return shards_.front().path; }
  std::size_t files() const { return shards_.size(); }
  const std::string& path_of(const GgufTensor& tensor) const { return shards_[tensor.shard].path; }
  // A hint: nobody reads the tensor's bytes any more (base/mapped_file.h).
  void release(const GgufTensor& tensor) const;

  struct Value {
    std::uint32_t type = 0;  // of it, or of an array's elements
    bool is_array = false;
    std::uint64_t count = 1;
    const std::byte* data = nullptr;  // where the value or the first element begins
  };

 private:
  struct Shard {
    std::string path;
    MappedFile file;
  };
  Result<void> add(const std::string& path);
  Result<void> add_other_parts();
  Result<void> index_tensors();
  const Value* find(std::string_view key, bool is_array) const;

  std::vector<Shard> shards_;
  std::unordered_map<std::string_view, Value> values_;  // of the first file
  std::vector<GgufTensor> tensors_;
  std::unordered_map<std::string_view, std::size_t> tensor_places_;
};

}  // namespace chorus

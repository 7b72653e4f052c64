// The JSON header of one safetensors file, checked against the length of the data behind it. Pure: bytes in, entries
// out.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "tensor/dtype.h"

namespace chorus {

constexpr std::uint64_t safetensors_header_bytes_max = 100U
                                                       << 20;  // the format's own limit (safetensors, MAX_HEADER_SIZE)

struct SafetensorsEntry {
  std::string name;
  std::string type;                 // as written: "BF16", "F8_E4M3"
  std::optional<DType> dtype;       // what it is here, if weights may have it
  std::vector<std::int64_t> shape;  // its product times the element size is end - begin
  std::uint64_t begin = 0;          // bytes from the first one behind the header
  std::uint64_t end = 0;
};

struct SafetensorsHeader {
  std::vector<SafetensorsEntry> entries;
  // Of __metadata__, (alias, name) where the name is an entry's and the alias is not: safetensors.torch.save_model
  // writes of tensors that share their memory only one, and the others' names there.
  std::vector<std::pair<std::string, std::string>> aliases;
};

// Where the header lies: [8, 8 + length) of a file of `file_bytes` whose first 8 bytes are `prefix`. Errors: a file
// shorter than that, a length past its end or over the limit.
Result<std::uint64_t> safetensors_header_length(const unsigned char (&prefix)[8], std::uint64_t file_bytes);

// The entries in the order of their bytes, which they cover from 0 to `data_bytes` without overlap or hole. Errors name
// the tensor and the reason. `__metadata__` must be null or an object of strings.
Result<SafetensorsHeader> parse_safetensors_header(std::string_view header, std::uint64_t data_bytes);

}  // namespace chorus

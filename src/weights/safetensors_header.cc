#include "weights/safetensors_header.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <unordered_set>

#include "json/json.h"

namespace chorus {
namespace {

struct ElementType {
  std::string_view name;
  std::uint64_t bits;
  std::optional<DType> dtype;
};
// Every type of the format; the last column is what weights may be.
constexpr std::array element_types = {
    ElementType{"F32", 32, DType::float32},  ElementType{"BF16", 16, DType::bfloat16},
    ElementType{"F16", 16, DType::float16},  ElementType{"F64", 64, std::nullopt},
    ElementType{"C64", 64, std::nullopt},    ElementType{"I64", 64, std::nullopt},
    ElementType{"U64", 64, std::nullopt},    ElementType{"I32", 32, std::nullopt},
    ElementType{"U32", 32, std::nullopt},    ElementType{"I16", 16, std::nullopt},
    ElementType{"U16", 16, std::nullopt},    ElementType{"I8", 8, std::nullopt},
    ElementType{"U8", 8, std::nullopt},      ElementType{"BOOL", 8, std::nullopt},
    ElementType{"F8_E4M3", 8, std::nullopt}, ElementType{"F8_E5M2", 8, std::nullopt},
    ElementType{"F8_E8M0", 8, std::nullopt}, ElementType{"F6_E2M3", 6, std::nullopt},
    ElementType{"F6_E3M2", 6, std::nullopt}, ElementType{"F4", 4, std::nullopt},
};

Error refuse(const std::string& name, const std::string& reason) {
  return fail(ErrorCode::invalid_argument, "tensor {}: {}", name.substr(0, 200), reason);
}

const ElementType* find_element_type(std::string_view name) {
  const auto found = std::find_if(element_types.begin(), element_types.end(),
                                  [&](const ElementType& type) { return type.name == name; });
  return found == element_types.end() ? nullptr : &*found;
}

// A JSON integer from 0 on that fits an int64 (so that sums of two cannot wrap a uint64).
std::optional<std::uint64_t> as_count(const Json& value) {
  if (!value.is_number_integer()) return std::nullopt;
  if (!value.is_number_unsigned() && value.get<std::int64_t>() < 0) return std::nullopt;
  const auto count = value.get<std::uint64_t>();
  if (count > static_cast<std::uint64_t>(INT64_MAX)) return std::nullopt;
  return count;
}

Result<void> read_shape(const Json& value, SafetensorsEntry* entry) {
  const auto shape = value.find("shape");
  if (shape == value.end() || !shape->is_array()) return refuse(entry->name, "shape is missing or no list");
  for (const Json& dimension : *shape) {
    const auto count = as_count(dimension);
    if (!count) return refuse(entry->name, "shape has an element that is no integer from 0 to 2^63 - 1");
    entry->shape.push_back(static_cast<std::int64_t>(*count));
  }
  return {};
}

Result<void> read_offsets(const Json& value, std::uint64_t data_bytes, SafetensorsEntry* entry) {
  const auto offsets = value.find("data_offsets");
  if (offsets == value.end() || !offsets->is_array() || offsets->size() != 2) {
    return refuse(entry->name, "data_offsets is missing or no list of two");
  }
  const auto begin = as_count((*offsets)[0]), end = as_count((*offsets)[1]);
  if (!begin || !end) return refuse(entry->name, "data_offsets has an element that is no integer from 0 to 2^63 - 1");
  if (*begin > *end)
    return refuse(entry->name, fmt::format("data_offsets [{}, {}] end before they begin", *begin, *end));
  if (*end > data_bytes) {
    return refuse(entry->name,
                  fmt::format("data_offsets [{}, {}] pass the {} bytes of data in the file", *begin, *end, data_bytes));
  }
  entry->begin = *begin;
  entry->end = *end;
  return {};
}

// Bytes of a tensor of this shape, or nothing where they pass a uint64 or are no whole number.
std::optional<std::uint64_t> byte_count(const ElementType& type, const std::vector<std::int64_t>& shape) {
  std::uint64_t bits = type.bits;
  for (const std::int64_t dimension : shape) {
    if (__builtin_mul_overflow(bits, static_cast<std::uint64_t>(dimension), &bits)) return std::nullopt;
  }
  if (bits % 8 != 0) return std::nullopt;
  return bits / 8;
}

Result<SafetensorsEntry> read_entry(const std::string& name, const Json& value, std::uint64_t data_bytes) {
  SafetensorsEntry entry;
  entry.name = name;
  if (!value.is_object()) return refuse(name, "not an object with dtype, shape and data_offsets");
  const auto dtype = value.find("dtype");
  if (dtype == value.end() || !dtype->is_string()) return refuse(name, "dtype is missing or no string");
  entry.type = dtype->get<std::string>();
  const ElementType* type = find_element_type(entry.type);
  if (type == nullptr) return refuse(name, fmt::format("unknown dtype \"{}\"", entry.type.substr(0, 40)));
  entry.dtype = type->dtype;
  CHORUS_TRY_VOID(read_shape(value, &entry));
  CHORUS_TRY_VOID(read_offsets(value, data_bytes, &entry));
  if (value.size() != 3) return refuse(name, "has keys other than dtype, shape and data_offsets");
  const auto bytes = byte_count(*type, entry.shape);
  if (!bytes) return refuse(name, "the bytes of its shape pass 64 bits or are no whole number");
  if (*bytes != entry.end - entry.begin) {
    return refuse(name, fmt::format("its shape and dtype need {} bytes, its data_offsets [{}, {}] give {}", *bytes,
                                    entry.begin, entry.end, entry.end - entry.begin));
  }
  return entry;
}

// Its pairs of strings.
Result<void> read_metadata(const Json& metadata, std::vector<std::pair<std::string, std::string>>* pairs) {
  if (metadata.is_null()) return {};
  if (!metadata.is_object()) return fail(ErrorCode::invalid_argument, "__metadata__ is not an object of strings");
  for (const auto& [key, value] : metadata.items()) {
    if (!value.is_string()) return fail(ErrorCode::invalid_argument, "__metadata__ is not an object of strings");
    pairs->emplace_back(key, value.get<std::string>());
  }
  return {};
}

// Sorts by place and checks that each tensor begins where the one before ended, and the last one ends with the file.
Result<void> check_cover(std::vector<SafetensorsEntry>* entries, std::uint64_t data_bytes) {
  std::sort(entries->begin(), entries->end(), [](const SafetensorsEntry& a, const SafetensorsEntry& b) {
    return a.begin != b.begin ? a.begin < b.begin : a.end < b.end;
  });
  std::uint64_t covered = 0;
  for (const SafetensorsEntry& entry : *entries) {
    if (entry.begin < covered) {
      return refuse(entry.name, fmt::format("begins at byte {} inside the tensor before it, which ends at {}",
                                            entry.begin, covered));
    }
    if (entry.begin > covered) {
      return refuse(entry.name, fmt::format("begins at byte {}, leaving a hole from byte {}", entry.begin, covered));
    }
    covered = entry.end;
  }
  if (covered != data_bytes) {
    return fail(ErrorCode::invalid_argument, "the tensors end at byte {} of {} bytes of data: the rest belongs to none",
                covered, data_bytes);
  }
  return {};
}

void keep_aliases(SafetensorsHeader* header) {
  std::unordered_set<std::string_view> names;
  for (const SafetensorsEntry& entry : header->entries) names.insert(entry.name);
  std::erase_if(header->aliases,
                [&](const auto& pair) { return names.contains(pair.first) || !names.contains(pair.second); });
}

}  // namespace

Result<std::uint64_t> safetensors_header_length(const unsigned char (&prefix)[8], std::uint64_t file_bytes) {
  if (file_bytes < 8)
    return fail(ErrorCode::invalid_argument, "{} bytes are no safetensors file: it has at least 8", file_bytes);
  std::uint64_t length = 0;
  for (int byte = 7; byte >= 0; --byte) length = length << 8 | prefix[byte];
  if (length > safetensors_header_bytes_max) {
    return fail(ErrorCode::invalid_argument, "header length {} is over the limit of {} bytes: not a safetensors file?",
                length, safetensors_header_bytes_max);
  }
  if (length > file_bytes - 8) {
    return fail(ErrorCode::invalid_argument, "header length {} passes the end of the file ({} bytes): cut short?",
                length, file_bytes);
  }
  return length;
}

Result<SafetensorsHeader> parse_safetensors_header(std::string_view header, std::uint64_t data_bytes) {
  // Depth: the header, an entry, its lists. parse_json refuses duplicate keys, and with them duplicate tensor names.
  auto document = parse_json(header, JsonLimits{.bytes_max = safetensors_header_bytes_max, .depth_max = 3});
  if (!document) return with_context(document.error(), "header");
  if (!document->is_object()) return fail(ErrorCode::invalid_argument, "header: not a JSON object");
  SafetensorsHeader parsed;
  parsed.entries.reserve(document->size());
  for (const auto& [name, value] : document->items()) {
    if (name == "__metadata__") {
      CHORUS_TRY_VOID(read_metadata(value, &parsed.aliases));
      continue;
    }
    CHORUS_TRY(SafetensorsEntry entry, read_entry(name, value, data_bytes));
    parsed.entries.push_back(std::move(entry));
  }
  CHORUS_TRY_VOID(check_cover(&parsed.entries, data_bytes));
  keep_aliases(&parsed);
  return parsed;
}

}  // namespace chorus

#include "gguf/gguf_parser.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <unordered_set>

namespace chorus {
namespace {

constexpr std::uint32_t magic = 0x46554747;  // "GGUF"
constexpr std::uint64_t default_alignment = 32, alignment_max = 1 << 20;
constexpr std::uint64_t key_bytes_max = 65535, tensor_name_bytes_max = 1024;
constexpr std::uint32_t dimensions_max = 4;

// Reads forward through the file; after the first thing wrong everything is 0 or empty.
class Reader {
 public:
  explicit Reader(std::span<const std::byte> file) : file_(file) {}

  template <typename T>
  T read() {
    T value{};
    const std::byte* const from = take(sizeof(T));
    if (from != nullptr) std::memcpy(&value, from, sizeof(T));
    return value;
  }
  std::string_view text(std::uint64_t bytes_max) {
    const auto bytes = read<std::uint64_t>();
    if (bytes > bytes_max) {
      refuse(fmt::format("a text of {} bytes at byte {}; accepted: {} at most", bytes, at_, bytes_max));
      return {};
    }
    const std::byte* const from = take(bytes);
    return from == nullptr ? std::string_view() : std::string_view(reinterpret_cast<const char*>(from), bytes);
  }
  // `count` elements of `bytes` each, skipped.
  const std::byte* skip(std::uint64_t count, std::size_t bytes) {
    if (count > left() / bytes) {
      refuse(fmt::format("{} elements of {} bytes at byte {}, but {} bytes are left", count, bytes, at_, left()));
      return nullptr;
    }
    return take(count * bytes);
  }

  void refuse(const std::string& message) {
    if (!error_) error_ = fail(ErrorCode::invalid_argument, "{}", message);
  }
  bool ok() const { return !error_.has_value(); }
  const Error& error() const { return *error_; }
  std::uint64_t at() const { return at_; }
  std::uint64_t left() const { return file_.size() - at_; }
  const std::byte* here() const { return file_.data() + at_; }

 private:
  const std::byte* take(std::uint64_t bytes) {
    if (!ok()) return nullptr;
    if (bytes > left()) {
      refuse(fmt::format("{} bytes are needed at byte {}, but the file has {}: it was cut short, or is damaged", bytes,
                         at_, file_.size()));
      return nullptr;
    }
    const std::byte* const from = here();
    at_ += bytes;
    return from;
  }

  std::span<const std::byte> file_;
  std::uint64_t at_ = 0;
  std::optional<Error> error_;
};

// A Git LFS pointer begins like this: https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md
bool is_lfs_pointer(std::span<const std::byte> file) {
  constexpr std::string_view start = "version https://git-lfs";
  return file.size() >= start.size() && std::memcmp(file.data(), start.data(), start.size()) == 0;
}

Result<void> check_start(std::span<const std::byte> file, Reader* reader) {
  if (is_lfs_pointer(file)) {
    return fail(ErrorCode::invalid_argument, "a Git LFS pointer, not the model itself: fetch it with git lfs pull");
  }
  const auto start = reader->read<std::uint32_t>();
  if (!reader->ok() || start != magic) {
    return fail(ErrorCode::invalid_argument, "not a GGUF file: it does not begin with \"GGUF\"");
  }
  const auto version = reader->read<std::uint32_t>();
  if (version != 0 && (version & 0xFFFFU) == 0) {
    return fail(ErrorCode::invalid_argument, "GGUF in big-endian byte order; accepted: little-endian");
  }
  if (version != 2 && version != 3) {
    return fail(ErrorCode::invalid_argument, "GGUF version {}; accepted: 2, 3", version);
  }
  return {};
}

void skip_texts(std::uint64_t count, Reader* reader) {
  for (std::uint64_t i = 0; i < count && reader->ok(); ++i) reader->text(reader->left());
}

GgufFile::Value read_value(std::string_view key, Reader* reader) {
  GgufFile::Value value;
  value.type = reader->read<std::uint32_t>();
  if (value.type == static_cast<std::uint32_t>(GgufValueType::array)) {
    value.is_array = true;
    value.type = reader->read<std::uint32_t>();
    value.count = reader->read<std::uint64_t>();
  }
  const auto type = static_cast<GgufValueType>(value.type);
  if (type > GgufValueType::f64 || type == GgufValueType::array) {
    reader->refuse(fmt::format("{} is of type {}{}; accepted: 0 to 12, and arrays of them but for arrays",
                               key.substr(0, 100), value.type, value.is_array ? " in an array" : ""));
    return value;
  }
  value.data = reader->here();
  if (type == GgufValueType::text) {
    skip_texts(value.count, reader);
  } else {
    reader->skip(value.count, bytes_of(type));
  }
  return value;
}

Result<void> read_values(std::uint64_t count, Reader* reader, GgufHead* head) {
  std::unordered_set<std::string_view> seen;
  for (std::uint64_t i = 0; i < count && reader->ok(); ++i) {
    const std::string_view key = reader->text(key_bytes_max);
    const GgufFile::Value value = read_value(key, reader);
    if (reader->ok() && !seen.insert(key).second) {
      return fail(ErrorCode::invalid_argument, "the key {} is there twice", key.substr(0, 100));
    }
    head->values.emplace_back(key, value);
  }
  if (!reader->ok()) return reader->error();
  return {};
}

std::uint64_t alignment_of(const GgufHead& head) {
  for (const auto& [key, value] : head.values) {
    if (key != "general.alignment" || value.is_array || value.type != static_cast<std::uint32_t>(GgufValueType::u32)) {
      continue;
    }
    std::uint32_t alignment = 0;
    std::memcpy(&alignment, value.data, sizeof(alignment));
    return alignment;
  }
  return default_alignment;
}

// Bytes of a tensor; an error where its shape is impossible.
Result<std::size_t> size_of(const GgufTensor& tensor) {
  constexpr auto most = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
  std::uint64_t elements = 1;
  for (const std::int64_t dimension : tensor.shape) {
    const bool fits =
        dimension > 0 && !__builtin_mul_overflow(elements, static_cast<std::uint64_t>(dimension), &elements);
    if (!fits || elements > most) {
      return fail(ErrorCode::invalid_argument, "tensor {}: a dimension is not positive, or all together pass 2^63",
                  tensor.name);
    }
  }
  const std::int64_t columns = tensor.shape.empty() ? 1 : tensor.shape.back();
  const auto block = static_cast<std::uint64_t>(tensor.type->block_elements);
  if (columns % tensor.type->block_elements != 0) {
    return fail(ErrorCode::invalid_argument, "tensor {}: rows of {} elements are not whole blocks of {} ({})",
                tensor.name, columns, block, tensor.type->name);
  }
  std::uint64_t bytes = 0;
  if (__builtin_mul_overflow(elements / block, tensor.type->block_bytes, &bytes)) {
    return fail(ErrorCode::invalid_argument, "tensor {}: more bytes than 64 bits count", tensor.name);
  }
  return bytes;
}

struct PlacedTensor {
  GgufTensor tensor;
  std::uint64_t offset = 0;  // from the first byte behind the head, aligned
};

Result<PlacedTensor> read_tensor(Reader* reader) {
  PlacedTensor placed;
  GgufTensor& tensor = placed.tensor;
  tensor.name = reader->text(tensor_name_bytes_max);
  const auto dimensions = reader->read<std::uint32_t>();
  if (dimensions > dimensions_max) {
    reader->refuse(
        fmt::format("tensor {} has {} dimensions; accepted: {} at most", tensor.name, dimensions, dimensions_max));
  }
  for (std::uint32_t i = 0; i < dimensions && reader->ok(); ++i) tensor.shape.push_back(reader->read<std::int64_t>());
  std::reverse(tensor.shape.begin(), tensor.shape.end());
  const auto type = reader->read<std::uint32_t>();
  placed.offset = reader->read<std::uint64_t>();
  if (!reader->ok()) return reader->error();
  tensor.type = find_gguf_tensor_type(type);
  if (tensor.type == nullptr) {
    return fail(ErrorCode::invalid_argument, "tensor {} has the unknown type {}", tensor.name, type);
  }
  CHORUS_TRY(tensor.bytes, size_of(tensor));
  return placed;
}

// Where the tensors' bytes lie, all of them in the file and none in another's.
Result<void> place(std::span<const std::byte> file, std::uint64_t begin, std::uint64_t alignment,
                   std::vector<PlacedTensor>* placed, GgufHead* head) {
  const std::uint64_t available = begin > file.size() ? 0 : file.size() - begin;
  for (auto& [tensor, offset] : *placed) {
    if (offset % alignment != 0 || offset > available || tensor.bytes > available - offset) {
      return fail(ErrorCode::invalid_argument,
                  "tensor {}: {} bytes at {} of the {} that the file has behind its head (alignment {}): it was cut "
                  "short, or is damaged",
                  tensor.name, tensor.bytes, offset, available, alignment);
    }
    tensor.data = file.data() + begin + offset;
  }
  std::ranges::stable_sort(*placed, {}, &PlacedTensor::offset);
  for (std::size_t i = 1; i < placed->size(); ++i) {
    const PlacedTensor& before = (*placed)[i - 1];
    if (before.offset + before.tensor.bytes > (*placed)[i].offset) {
      return fail(ErrorCode::invalid_argument, "tensors {} and {} overlap", before.tensor.name,
                  (*placed)[i].tensor.name);
    }
  }
  for (auto& [tensor, offset] : *placed) head->tensors.push_back(std::move(tensor));
  return {};
}

}  // namespace

std::size_t bytes_of(GgufValueType type) {
  constexpr std::size_t sizes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
  return sizes[static_cast<std::uint32_t>(type)];
}

std::string_view next_gguf_text(const std::byte** at) {
  std::uint64_t bytes = 0;
  std::memcpy(&bytes, *at, sizeof(bytes));
  const auto* const text = reinterpret_cast<const char*>(*at + sizeof(bytes));
  *at += sizeof(bytes) + bytes;
  return {text, bytes};
}

Result<GgufHead> parse_gguf_head(std::span<const std::byte> file) {
  Reader reader(file);
  CHORUS_TRY_VOID(check_start(file, &reader));
  const auto tensor_count = reader.read<std::uint64_t>(), value_count = reader.read<std::uint64_t>();
  GgufHead head;
  CHORUS_TRY_VOID(read_values(value_count, &reader, &head));
  std::vector<PlacedTensor> placed;
  for (std::uint64_t i = 0; i < tensor_count; ++i) {
    CHORUS_TRY(PlacedTensor tensor, read_tensor(&reader));
    placed.push_back(std::move(tensor));
  }
  if (!reader.ok()) return reader.error();
  const std::uint64_t alignment = alignment_of(head);
  if (alignment > alignment_max || !std::has_single_bit(alignment)) {
    return fail(ErrorCode::invalid_argument, "general.alignment is {}; accepted: a power of two up to {}", alignment,
                alignment_max);
  }
  const std::uint64_t begin = (reader.at() + alignment - 1) / alignment * alignment;
  CHORUS_TRY_VOID(place(file, begin, alignment, &placed, &head));
  return head;
}

}  // namespace chorus

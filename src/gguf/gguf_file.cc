#include "gguf/gguf_file.h"

#include <cstring>
#include <limits>
#include <span>

#include "gguf/gguf_parser.h"

namespace chorus {
namespace {

constexpr std::int64_t parts_max = 10000;

template <typename T>
T value_at(const std::byte* data) {
  T value;
  std::memcpy(&value, data, sizeof(T));
  return value;
}

// nullopt: it is no integer of at most 63 bits.
std::optional<std::int64_t> integer_at(GgufValueType type, const std::byte* data) {
  switch (type) {
    case GgufValueType::u8:
      return value_at<std::uint8_t>(data);
    case GgufValueType::i8:
      return value_at<std::int8_t>(data);
    case GgufValueType::u16:
      return value_at<std::uint16_t>(data);
    case GgufValueType::i16:
      return value_at<std::int16_t>(data);
    case GgufValueType::u32:
      return value_at<std::uint32_t>(data);
    case GgufValueType::i32:
      return value_at<std::int32_t>(data);
    case GgufValueType::i64:
      return value_at<std::int64_t>(data);
    case GgufValueType::u64: {
      const auto value = value_at<std::uint64_t>(data);
      if (value > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) return std::nullopt;
      return static_cast<std::int64_t>(value);
    }
    case GgufValueType::f32:
    case GgufValueType::flag:
    case GgufValueType::text:
    case GgufValueType::array:
    case GgufValueType::f64:
      return std::nullopt;
  }
  return std::nullopt;
}

std::optional<double> number_at(GgufValueType type, const std::byte* data) {
  if (type == GgufValueType::f32) return value_at<float>(data);
  if (type == GgufValueType::f64) return value_at<double>(data);
  if (type == GgufValueType::flag) return value_at<std::uint8_t>(data) != 0 ? 1 : 0;
  const auto integer = integer_at(type, data);
  return integer ? std::optional<double>(static_cast<double>(*integer)) : std::nullopt;
}

// The name of part `number` of `count`, gguf-split's way, from that of the first.
std::optional<std::string> part_name(const std::string& first, std::int64_t number, std::int64_t count) {
  const std::string ending = fmt::format("-{:05}-of-{:05}.gguf", 1, count);
  if (!first.ends_with(ending)) return std::nullopt;
  return fmt::format("{}-{:05}-of-{:05}.gguf", first.substr(0, first.size() - ending.size()), number, count);
}

}  // namespace

bool is_gguf(std::string_view model) {
  return model.ends_with(".gguf");
}

Result<void> GgufFile::add(const std::string& path) {
  CHORUS_TRY(MappedFile file, MappedFile::open(path));
  shards_.push_back({path, std::move(file)});
  const MappedFile& mapped = shards_.back().file;
  auto head = parse_gguf_head({mapped.data(), mapped.size()});
  if (!head) return with_context(head.error(), path);
  if (shards_.size() == 1) values_.insert(head->values.begin(), head->values.end());
  for (GgufTensor& tensor : head->tensors) {
    tensor.shard = shards_.size() - 1;
    tensors_.push_back(std::move(tensor));
  }
  return {};
}

Result<void> GgufFile::add_other_parts() {
  const std::int64_t count = integer("split.count").value_or(1);
  if (count == 1) return {};
  const std::string first = path();
  if (integer("split.no") != 0 || count < 1 || count > parts_max || !part_name(first, 1, count)) {
    return fail(ErrorCode::invalid_argument,
                "{}: one of {} parts; give the first of them under the name that gguf-split gave it, "
                "NAME-00001-of-{:05}.gguf",
                first, count, count);
  }
  for (std::int64_t number = 2; number <= count; ++number) {
    CHORUS_TRY_VOID(add(*part_name(first, number, count)));
  }
  return {};
}

Result<void> GgufFile::index_tensors() {
  for (std::size_t i = 0; i < tensors_.size(); ++i) {
    if (!tensor_places_.emplace(tensors_[i].name, i).second) {
      return fail(ErrorCode::invalid_argument, "{}: tensor {} is there twice", path_of(tensors_[i]), tensors_[i].name);
    }
  }
  return {};
}

Result<GgufFile> GgufFile::open(const std::string& path) {
  GgufFile file;
  CHORUS_TRY_VOID(file.add(path));
  CHORUS_TRY_VOID(file.add_other_parts());
  CHORUS_TRY_VOID(file.index_tensors());
  return file;
}

const GgufFile::Value* GgufFile::find(std::string_view key, bool is_array) const {
  const auto found = values_.find(key);
  return found == values_.end() || found->second.is_array != is_array ? nullptr : &found->second;
}

std::optional<std::string_view> GgufFile::text(std::string_view key) const {
  const Value* const value = find(key, false);
  if (value == nullptr || static_cast<GgufValueType>(value->type) != GgufValueType::text) return std::nullopt;
  const std::byte* at = value->data;
  return next_gguf_text(&at);
}

std::optional<std::int64_t> GgufFile::integer(std::string_view key) const {
  const Value* const value = find(key, false);
  return value == nullptr ? std::nullopt : integer_at(static_cast<GgufValueType>(value->type), value->data);
}

std::optional<double> GgufFile::number(std::string_view key) const {
  const Value* const value = find(key, false);
  return value == nullptr ? std::nullopt : number_at(static_cast<GgufValueType>(value->type), value->data);
}

std::optional<bool> GgufFile::flag(std::string_view key) const {
  const Value* const value = find(key, false);
  if (value == nullptr || static_cast<GgufValueType>(value->type) != GgufValueType::flag) return std::nullopt;
  return value_at<std::uint8_t>(value->data) != 0;
}

std::vector<std::string_view> GgufFile::texts(std::string_view key) const {
  const Value* const value = find(key, true);
  std::vector<std::string_view> texts;
  if (value == nullptr || static_cast<GgufValueType>(value->type) != GgufValueType::text) return texts;
  texts.reserve(value->count);
  const std::byte* at = value->data;
  for (std::uint64_t i = 0; i < value->count; ++i) texts.push_back(next_gguf_text(&at));
  return texts;
}

std::vector<double> GgufFile::numbers(std::string_view key) const {
  const Value* const value = find(key, true);
  std::vector<double> numbers;
  if (value == nullptr || static_cast<GgufValueType>(value->type) == GgufValueType::text) return numbers;
  const auto type = static_cast<GgufValueType>(value->type);
  for (std::uint64_t i = 0; i < value->count; ++i) {
    const auto number = number_at(type, value->data + i * bytes_of(type));
    if (!number) return {};
    numbers.push_back(*number);
  }
  return numbers;
}

const GgufTensor* GgufFile::tensor(std::string_view name) const {
  const auto found = tensor_places_.find(name);
  return found == tensor_places_.end() ? nullptr : &tensors_[found->second];
}

void GgufFile::release(const GgufTensor& tensor) const {
  const MappedFile& file = shards_[tensor.shard].file;
  const auto begin = static_cast<std::size_t>(tensor.data - file.data());
  file.release(begin, begin + tensor.bytes);
}

}  // namespace chorus

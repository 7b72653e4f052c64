// Structs as messages (wire.h). A struct crosses the wire by the list of its fields (base/fields.h), in its order and
// for both directions, so an encoder and its decoder cannot come to differ.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "base/fields.h"
#include "net/wire.h"

namespace chorus::archive {

inline constexpr std::size_t reserved_bytes_max = 64 << 10;

class Encoder {
 public:
  WireWriter wire;

  void field(bool value) { wire.boolean(value); }
  void field(std::int32_t value) { wire.i32(value); }
  void field(std::uint32_t value) { wire.u32(value); }
  void field(std::uint64_t value) { wire.u64(value); }
  void field(float value) { wire.f32(value); }
  void field(double value) { wire.f64(value); }
  void field(const std::string& value) { wire.text(value); }
  template <typename E>
  void field(E value) requires std::is_enum_v<E> {
    wire.u8(static_cast<std::uint8_t>(value));
  }
};

class Decoder {
 public:
  explicit Decoder(std::string_view payload) : wire(payload) {}
  WireReader wire;

  void field(bool& value) { value = wire.boolean(); }
  void field(std::int32_t& value) { value = wire.i32(); }
  void field(std::uint32_t& value) { value = wire.u32(); }
  void field(std::uint64_t& value) { value = wire.u64(); }
  void field(float& value) { value = wire.f32(); }
  void field(double& value) { value = wire.f64(); }
  void field(std::string& value) { value = wire.text(); }
  template <typename E>
  void field(E& value) requires std::is_enum_v<E> {
    constexpr auto all = enumeration_of(E{});
    value = static_cast<E>(wire.u8_at_most(static_cast<std::uint8_t>(all.last), all.what));
  }
};

template <typename Archive, typename T>
requires requires(Archive& archive, T& value) {
  archive.field(value);
}
void visit(Archive& archive, T& value) {
  archive.field(value);
}

template <typename T>
void visit(Encoder& archive, const std::optional<T>& value) {
  archive.field(value.has_value());
  if (value.has_value()) visit(archive, *value);
}

template <typename T>
void visit(Decoder& archive, std::optional<T>& value) {
  value.reset();
  if (archive.wire.boolean()) visit(archive, value.emplace());
}

template <typename T>
void visit(Encoder& archive, const std::vector<T>& values) {
  archive.wire.count(values.size());
  for (const auto& value : values) visit(archive, value);
}

template <typename T>
void visit(Decoder& archive, std::vector<T>& values) {
  values.clear();
  std::size_t left = archive.wire.count(1);
  // Beyond this it grows element by element: the first malformed one ends it, so a count alone cannot make it large.
  values.reserve(std::min(left, reserved_bytes_max / sizeof(T)));
  for (; left > 0 && !archive.wire.failed(); --left) {
    visit(archive, values.emplace_back());
  }
}

inline void visit(Encoder& archive, const std::vector<bool>& values) {
  archive.wire.count(values.size());
  for (const bool value : values) archive.wire.boolean(value);
}

inline void visit(Decoder& archive, std::vector<bool>& values) {
  values.clear();
  for (std::size_t left = archive.wire.count(1); left > 0 && !archive.wire.failed(); --left) {
    values.push_back(archive.wire.boolean());
  }
}

template <typename Archive, typename First, typename Second>
void visit(Archive& archive, std::pair<First, Second>& value) {
  visit(archive, value.first);
  visit(archive, value.second);
}

template <typename Archive, typename First, typename Second>
void visit(Archive& archive, const std::pair<First, Second>& value) {
  visit(archive, value.first);
  visit(archive, value.second);
}

template <typename Archive, HasFields T>
void visit(Archive& archive, T& value) {
  for_each_field(value, [&](auto& field) { visit(archive, field); });
}

template <typename T>
std::string encode_value(const T& value) {
  Encoder archive;
  visit(archive, value);
  return archive.wire.take();
}

template <typename T>
Result<T> decode_value(std::string_view payload, const char* name) {
  Decoder archive(payload);
  T value{};
  visit(archive, value);
  if (auto read = archive.wire.finish(); !read.ok()) return with_context(read.error(), name);
  return value;
}

}  // namespace chorus::archive

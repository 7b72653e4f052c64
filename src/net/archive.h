// Structs as messages (wire.h). A struct crosses the wire by one function, found by its argument:
//   template <typename Archive> void visit(Archive& archive, IsA<Point> auto& value) { visit_all(archive, value.x,
//   value.y); }
// in this namespace, declared before it is used by encode_value<Point>() or decode_value<Point>().
#pragma once

#include <concepts>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "net/wire.h"

namespace chorus::archive {

// One function lists the fields of a struct, in their order on the wire, for both directions: visit(archive, value). So
// an encoder and its decoder cannot come to differ. The archive is an Encoder (value is const) or a Decoder.
template <typename T, typename U>
concept IsA = std::same_as<std::remove_cvref_t<T>, U>;

class Encoder {
 public:
  static constexpr bool decodes = false;
  WireWriter wire;

  void field(bool value) { wire.boolean(value); }
  void field(std::int32_t value) { wire.i32(value); }
  void field(std::uint32_t value) { wire.u32(value); }
  void field(std::uint64_t value) { wire.u64(value); }
  void field(float value) { wire.f32(value); }
  void field(double value) { wire.f64(value); }
  void field(const std::string& value) { wire.text(value); }
  template <typename E>
  void enumerator(E value, E /*last*/, const char* /*what*/) {
    wire.u8(static_cast<std::uint8_t>(value));
  }
};

class Decoder {
 public:
  static constexpr bool decodes = true;
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
  void enumerator(E& value, E last, const char* what) {
    value = static_cast<E>(wire.u8_at_most(static_cast<std::uint8_t>(last), what));
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
  // Grows element by element: the first malformed one ends it, so a count alone cannot make the list large.
  for (std::size_t left = archive.wire.count(1); left > 0 && !archive.wire.failed(); --left) {
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

template <typename Archive, typename... Fields>
void visit_all(Archive& archive, Fields&... fields) {
  (visit(archive, fields), ...);
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

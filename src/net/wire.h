// Plain values as bytes: fixed-width little-endian integers, IEEE 754 bit patterns, texts and lists behind a u32 count.
// No tags and no versions inside: both ends are the same build of Chorus, which the handshake checks
// (protocol/messages.h).
//
// The reader trusts nothing. A read past the end, a flag that is neither 0 nor 1, a count that cannot fit in what is
// left make it fail; from then on it returns zeros, so that a decoder reads straight through and asks once, in
// finish(). No count is believed before the bytes for it are there, so a short message cannot ask for a large
// allocation.
#pragma once

#include <bit>
#include <concepts>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

namespace chorus {

class WireWriter {
 public:
  void u8(std::uint8_t value) { bytes_.push_back(static_cast<char>(value)); }
  void boolean(bool value) { u8(value ? 1 : 0); }
  void u32(std::uint32_t value) { unsigned_value(value); }
  void u64(std::uint64_t value) { unsigned_value(value); }
  void i32(std::int32_t value) { unsigned_value(static_cast<std::uint32_t>(value)); }
  void f32(float value) { unsigned_value(std::bit_cast<std::uint32_t>(value)); }
  void f64(double value) { unsigned_value(std::bit_cast<std::uint64_t>(value)); }
  void text(std::string_view value) {
    count(value.size());
    bytes_.append(value);
  }
  // Of a list whose elements the caller writes next. More than 2^32 - 1 of them is a broken invariant.
  void count(std::size_t elements);

  std::size_t size() const { return bytes_.size(); }
  const std::string& bytes() const { return bytes_; }
  std::string take() { return std::move(bytes_); }
  void clear() { bytes_.clear(); }  // keeps the capacity
  void append(std::string_view bytes) { bytes_.append(bytes); }

 private:
  template <std::unsigned_integral T>
  void unsigned_value(T value) {
    char little_endian[sizeof(T)];
    for (std::size_t i = 0; i < sizeof(T); ++i) little_endian[i] = static_cast<char>((value >> (8 * i)) & 0xFFU);
    bytes_.append(little_endian, sizeof(T));
  }

  std::string bytes_;
};

class WireReader {
 public:
  // `bytes` must outlive the reader.
  explicit WireReader(std::string_view bytes) : bytes_(bytes) {}

  std::uint8_t u8() { return unsigned_value<std::uint8_t>(); }
  bool boolean() { return u8_at_most(1, "a flag") != 0; }
  std::uint32_t u32() { return unsigned_value<std::uint32_t>(); }
  std::uint64_t u64() { return unsigned_value<std::uint64_t>(); }
  std::int32_t i32() { return static_cast<std::int32_t>(u32()); }
  float f32() { return std::bit_cast<float>(u32()); }
  double f64() { return std::bit_cast<double>(u64()); }
  std::string text();
  // An enumerator: fails above `limit`. `what` names it in the message.
  std::uint8_t u8_at_most(std::uint8_t limit, const char* what);
  // The count of a list whose elements take at least `element_bytes_min` (> 0) bytes each; 0 once the reader has
  // failed.
  std::size_t count(std::size_t element_bytes_min);

  // A decoder's own objection ("n is 0"); the first one stays.
  void refuse(std::string reason);
  bool failed() const { return failed_; }
  // Ok when everything was read and nothing is left over; else what was wrong and at which byte.
  Result<void> finish() const;

 private:
  template <std::unsigned_integral T>
  T unsigned_value() {
    if (!has(sizeof(T))) return 0;
    std::uint64_t value = 0;
    for (std::size_t i = 0; i < sizeof(T); ++i) {
      value |= std::uint64_t{static_cast<unsigned char>(bytes_[offset_ + i])} << (8 * i);
    }
    offset_ += sizeof(T);
    return static_cast<T>(value);
  }
  bool has(std::size_t bytes);

  std::string_view bytes_;
  std::size_t offset_ = 0;
  bool failed_ = false;
  std::string reason_;
};

}  // namespace chorus

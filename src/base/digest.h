// A short text that tells one list of parts from another. Not keyed: for parts that nobody chooses to collide.
#pragma once

#include <fmt/format.h>

#include <string>
#include <string_view>

#include "base/siphash.h"

namespace chorus {

inline constexpr std::array<std::uint64_t, 2> digest_key = {1, 2};

// 32 hexadecimal digits.
inline std::string text_of(const Hash128& hash) {
  return fmt::format("{:016x}{:016x}", hash.high, hash.low);
}

class Digest {
 public:
  void add(std::string_view part) {
    const std::uint64_t size = part.size();
    hash_.add({reinterpret_cast<const char*>(&size), sizeof(size)});
    hash_.add(part);
  }
  Hash128 value() const { return hash_.value(); }
  std::string text() const { return text_of(value()); }

 private:
  ByteHash hash_{digest_key};
};

}  // namespace chorus

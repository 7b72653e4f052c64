// A running hash of what was decided, to compare two runs.
#pragma once

#include <cstdint>

namespace chorus::sim {

class Digest {
 public:
  template <typename... Values>
  void add(Values... values) {
    ((state_ = (state_ ^ static_cast<std::uint64_t>(values)) * 0x100000001B3ULL, state_ ^= state_ >> 29), ...);
  }
  std::uint64_t value() const { return state_; }

 private:
  std::uint64_t state_ = 0xCBF29CE484222325ULL;
};

}  // namespace chorus::sim

// The simulator's dice: splitmix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014).
// The standard library's distributions are not the same on every machine; these are.
#pragma once

#include <cmath>
#include <cstdint>

namespace chorus::sim {

class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}

  std::uint64_t next() {
    std::uint64_t x = state_ += 0x9E3779B97F4A7C15ULL;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ULL;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBULL;
    return x ^ (x >> 31);
  }
  // In [low, high], both included.
  std::int64_t between(std::int64_t low, std::int64_t high) {
    return low + static_cast<std::int64_t>(next() % static_cast<std::uint64_t>(high - low + 1));
  }
  bool chance(double probability) { return uniform() < probability; }
  double uniform() { return static_cast<double>(next() >> 11) * 0x1.0p-53; }
  // Of a Poisson process: the time to the next arrival.
  std::int64_t exponential(double mean) { return static_cast<std::int64_t>(-std::log(1.0 - uniform()) * mean); }
  // A separate generator, for a part whose draws shall not depend on the others'.
  Random fork() { return Random(next()); }

 private:
  std::uint64_t state_;
};

}  // namespace chorus::sim

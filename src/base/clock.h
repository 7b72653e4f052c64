// The Clock seam: production reads the monotonic clock, the simulator sets its own time.
#pragma once

#include <chrono>
#include <cstdint>

namespace chorus {

// Nanoseconds since an arbitrary start. Pure rooms get `now` as an argument and never read a clock.
using Nanoseconds = std::int64_t;

inline Nanoseconds monotonic_now() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

}  // namespace chorus

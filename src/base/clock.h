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

inline Nanoseconds deadline_after(int timeout_ms) {
  return monotonic_now() + Nanoseconds{timeout_ms} * 1'000'000;
}
// Rounded up, so that a wait of the result does not end early; 0 when it is over.
inline int milliseconds_until(Nanoseconds deadline) {
  const Nanoseconds left = deadline - monotonic_now();
  return left <= 0 ? 0 : static_cast<int>((left + 999'999) / 1'000'000);
}

}  // namespace chorus

// Tells a replica that hangs from one that computes, by what it shows of its progress (base/progress.h). Pure.
#pragma once

#include <optional>

#include "base/clock.h"
#include "base/progress.h"

namespace chorus {

struct HangLimits {
  // A replica at work that finishes no layer for so long, and for so many times as long as a whole step is expected to
  // take, hangs. A machine under load lets a process wait for some tenths of a second.
  Nanoseconds stall_min = 1'000'000'000;
  std::int64_t steps = 5;
  // How often to look while it works. No time between two looks counts for more than twice this: a watcher that was
  // stopped itself (a suspended machine, a debugger) must not blame the watched.
  Nanoseconds look_interval = 100'000'000;
};

class HangWatch {
 public:
  explicit HangWatch(const HangLimits& limits = {}) : limits_(limits) {}

  // What the page says now. Gives for how long nothing has moved once that is a hang. Before its first step has ended
  // no time is expected, and a replica is not judged.
  std::optional<Nanoseconds> look(const ProgressSample& sample, Nanoseconds now);
  const HangLimits& limits() const { return limits_; }

 private:
  HangLimits limits_;
  ProgressSample last_;
  Nanoseconds looked_at_ = 0;
  Nanoseconds stalled_ = 0;
};

}  // namespace chorus

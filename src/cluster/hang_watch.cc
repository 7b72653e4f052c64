#include "cluster/hang_watch.h"

#include <algorithm>
#include <utility>

namespace chorus {

std::optional<Nanoseconds> HangWatch::look(const ProgressSample& sample, Nanoseconds now) {
  const Nanoseconds since = std::min(now - std::exchange(looked_at_, now), 2 * limits_.look_interval);
  const bool stalls = sample.busy && last_.busy && sample.moves == last_.moves;
  last_ = sample;
  stalled_ = stalls ? stalled_ + since : 0;
  if (sample.expected_step_time == 0) return std::nullopt;
  const Nanoseconds allowed = std::max(limits_.stall_min, limits_.steps * sample.expected_step_time);
  return stalled_ > allowed ? std::optional(stalled_) : std::nullopt;
}

}  // namespace chorus

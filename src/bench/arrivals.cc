#include "bench/arrivals.h"

#include <algorithm>
#include <cmath>
#include <random>

namespace chorus {
namespace {

double rate_of(const Arrivals& arrivals, std::size_t index, std::size_t count) {
  const RampUp& ramp = arrivals.ramp_up;
  if (ramp.strategy.empty()) return arrivals.request_rate;
  const double progress = static_cast<double>(index) / static_cast<double>(std::max<std::size_t>(count - 1, 1));
  if (ramp.strategy == "linear") return ramp.from + (ramp.to - ramp.from) * progress;
  return ramp.from * std::pow(ramp.to / ramp.from, progress);
}

}  // namespace

std::vector<double> arrival_times(const Arrivals& arrivals, std::size_t count, std::uint64_t seed) {
  std::vector<double> times(count);
  std::mt19937_64 random(seed);
  double now = 0;
  for (std::size_t i = 0; i < count; ++i) {
    const double rate = rate_of(arrivals, i, count);
    if (std::isinf(arrivals.burstiness)) {
      now += 1 / rate;
    } else if (!std::isinf(rate)) {
      now += std::gamma_distribution<double>(arrivals.burstiness, 1 / (rate * arrivals.burstiness))(random);
    }
    times[i] = now;
  }
  if (!arrivals.ramp_up.strategy.empty() || now == 0) return times;
  const double stretch = static_cast<double>(count) / arrivals.request_rate / now;
  for (double& time : times) time *= stretch;
  return times;
}

}  // namespace chorus

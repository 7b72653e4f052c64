// When the requests of a serving benchmark begin. Pure.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

namespace chorus {

// The rate goes from `from` to `to` requests a second over the run.
struct RampUp {
  std::string strategy;  // linear, exponential; "": none
  double from = 0, to = 0;
};

// The latest that a request may begin, in seconds: a year.
inline constexpr double arrival_max_s = 365.0 * 86400;

struct Arrivals {
  double request_rate = std::numeric_limits<double>::infinity();  // a second; infinity: all at once
  // The shape of the gamma distribution of the times between two: 1 is a Poisson process, less comes in bursts, more is
  // more even, infinity exactly even.
  double burstiness = 1;
  RampUp ramp_up = {};
};

// Seconds from the beginning, one a request, ascending. As vLLM has it (benchmarks/serve.py, get_request): without a
// ramp the times are stretched so that `count` requests take count / request_rate seconds, whatever the seed.
std::vector<double> arrival_times(const Arrivals& arrivals, std::size_t count, std::uint64_t seed);

}  // namespace chorus

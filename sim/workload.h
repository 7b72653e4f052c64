// Random requests and how their client behaves: a function of the seed alone, not of the cluster that serves them.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <vector>

#include "base/clock.h"
#include "random.h"
#include "request/request.h"

namespace chorus::sim {

inline constexpr std::int32_t vocab_size = 64;
inline constexpr std::int32_t max_model_len = 48;
inline constexpr std::int32_t prompt_max = 24;
inline constexpr std::uint32_t output_max = 16;
inline constexpr TokenId eos_token = 0;

// One request with what its client will do.
struct Job {
  Request request;
  Nanoseconds arrival = 0;
  std::uint64_t number = 0;                      // 1, 2, ... in order of arrival
  bool poison = false;                           // it kills every replica that computes it
  bool refused = false;                          // the engine must fail it: empty, too long or outside the vocabulary
  std::optional<Nanoseconds> abort_after;        // the client hangs up so long after it came
  std::map<std::uint32_t, std::uint32_t> stops;  // choice -> tokens after which the front end finds a stop string
};

// `count` jobs in order of arrival, without ids: front ends give them. Arrivals are Poisson with `gap_mean` between
// them, and bursts. `poison`: the share of jobs that are.
std::vector<Job> make_workload(std::uint64_t seed, std::size_t count, Nanoseconds gap_mean, double poison);

}  // namespace chorus::sim

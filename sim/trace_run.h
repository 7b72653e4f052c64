// A recorded load through simulated replicas: which of them each load balancer chooses, what their prefix caches find,
// how long requests wait. The production Dispatcher and schedulers under a simulated clock; a step takes as long as a
// linear model of an accelerator says. Nothing dies here: world.h has that.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "config/engine_config.h"

namespace chorus::sim {

// A line of a Mooncake trace (github.com/kvcache-ai/Mooncake, FAST'25): prompts are known by the ids of their blocks of
// 512 tokens; equal ids are equal tokens behind equal beginnings.
struct TraceRequest {
  Nanoseconds arrival = 0;
  std::int32_t input_tokens = 0, output_tokens = 0;
  std::vector<std::uint64_t> blocks;
};
inline constexpr std::int32_t trace_block_tokens = 512;

// JSON lines: {"timestamp": milliseconds, "input_length", "output_length", "hash_ids"}. Errors name the line.
Result<std::vector<TraceRequest>> read_trace(const std::string& path);

struct TraceConfig {
  int replicas = 8;
  LoadBalancerName balancer = LoadBalancerName::least_loaded;
  double speed = 1;                  // arrivals come so many times as fast
  std::int32_t kv_tokens = 480'000;  // that a replica's cache holds: about 60 GB of an 8B model with 8 KV heads
  std::int32_t max_num_seqs = 256;
  std::int32_t max_num_batched_tokens = 8192;
  // Of a step: 8 ms for the weights, 25 us a prompt token (40,000 a second), 40 us a sequence that decodes.
  Nanoseconds step_time = 8'000'000, prompt_token_time = 25'000, sequence_time = 40'000;
  Nanoseconds report_interval = 20'000'000;  // as an engine's
};

struct TraceOutcome {
  std::uint64_t requests = 0;
  std::uint64_t prompt_tokens = 0, output_tokens = 0;
  std::uint64_t cached_tokens = 0;              // of the prompts
  double waiting_p50_s = 0, waiting_p99_s = 0;  // from its arrival until a step takes it
  double first_token_p50_s = 0, first_token_p99_s = 0;
  double busiest = 0;    // replica's tokens (computed), by the mean's
  double elapsed_s = 0;  // simulated
};

TraceOutcome run_trace(const std::vector<TraceRequest>& trace, const TraceConfig& config);

}  // namespace chorus::sim

// What /metrics shows: a row of the table for each metric. Names, labels and buckets are vLLM 0.33's; what vLLM has not
// begins with "chorus:". Every label value that can occur is in the table, so that a metric has a fixed number of cells
// (metric_layout.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace chorus {

enum class MetricKind : std::uint8_t { counter, gauge, histogram };
enum class MetricBuckets : std::uint8_t {
  none,
  tokens,
  choices,
  preemptions,
  step_rows,
  first_token,
  per_token,
  request,
  http
};
enum class MetricLabels : std::uint8_t { none, model, engine };  // engine: model_name too, and a series a replica

// In the order of the table. First what the parent writes, then what each front end does.
enum class Metric : std::uint8_t {
  requests_running,
  requests_waiting,
  requests_waiting_by_reason,
  kv_cache_usage,
  engine_sleep_state,
  prefix_cache_queries,
  prefix_cache_hits,
  preemptions,
  step_rows,
  prefix_cache_resets,
  kv_blocks,
  replica_ready,
  replica_state,
  replica_deaths,
  front_end_deaths,

  prompt_tokens,
  prompt_tokens_cached,
  prompt_tokens_by_source,
  generation_tokens,
  request_success,
  request_prompt_tokens,
  request_generation_tokens,
  request_max_num_generation_tokens,
  request_params_max_tokens,
  request_params_n,
  request_num_preemptions,
  request_prefill_computed_tokens,
  time_to_first_token,
  inter_token_latency,
  time_per_output_token,
  e2e_latency,
  queue_time,
  inference_time,
  prefill_time,
  decode_time,
  admission_rejections,
  http_requests,
  http_duration,
  requests_moved,
  tokens_replayed,
  prefix_placements,
  prefix_placed_tokens,
  unknown_fields,
  http_connections,
  queued_requests,
  queued_tokens,
};
inline constexpr std::size_t metric_count = static_cast<std::size_t>(Metric::queued_tokens) + 1;

struct MetricRow {
  Metric metric;
  const char* name;  // without what the format adds (_bucket, _sum, _count)
  MetricKind kind;
  MetricLabels labels;
  const char* help;
  std::span<const char* const> values = {};  // of one more label, as they are written: reason="capacity"
  MetricBuckets buckets = MetricBuckets::none;
};

std::span<const MetricRow> metric_rows();
const MetricRow& row_of(Metric metric);

// Places in the rows' `values`.
namespace metric_value {
enum WaitingReason : std::uint8_t { capacity, deferred };
enum SleepState : std::uint8_t { awake, weights_offloaded, discard_all };
enum TokenSource : std::uint8_t { computed, cached, transferred };
enum FinishedReason : std::uint8_t { stop, length, abort, error, repetition };
enum ReplicaStateName : std::uint8_t { starting, ready, draining, drained, restarting, given_up, removed };
enum RejectionReason : std::uint8_t { too_many_requests, too_many_tokens, no_room };
}  // namespace metric_value

// Of `http_requests` and `http_duration`. `path`: of the request; what is no route of ours counts as "none".
std::size_t http_request_value(std::string_view method, std::string_view path, int status);
std::size_t http_duration_value(std::string_view method, std::string_view path);

}  // namespace chorus

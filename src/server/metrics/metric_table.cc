#include "server/metrics/metric_table.h"

#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include "base/check.h"

namespace chorus {
namespace {

constexpr const char* waiting_reasons[] = {"reason=\"capacity\"", "reason=\"deferred\""};
constexpr const char* sleep_states[] = {"sleep_state=\"awake\"", "sleep_state=\"weights_offloaded\"",
                                        "sleep_state=\"discard_all\""};
constexpr const char* token_sources[] = {"source=\"local_compute\"", "source=\"local_cache_hit\"",
                                         "source=\"external_kv_transfer\""};
constexpr const char* finished_reasons[] = {"finished_reason=\"stop\"", "finished_reason=\"length\"",
                                            "finished_reason=\"abort\"", "finished_reason=\"error\"",
                                            "finished_reason=\"repetition\""};
constexpr const char* replica_states[] = {"state=\"starting\"", "state=\"ready\"",      "state=\"draining\"",
                                          "state=\"drained\"",  "state=\"restarting\"", "state=\"given_up\"",
                                          "state=\"removed\""};
constexpr const char* rejection_reasons[] = {"reason=\"max_num_queued_reqs\"", "reason=\"max_num_queued_tokens\"",
                                             "reason=\"no_room\""};

// Routes whose requests are counted. As in vLLM, those that machines ask for all the time are not.
struct Handler {
  const char* method;
  const char* path;
};
constexpr Handler handlers[] = {{"POST", "/v1/completions"}, {"POST", "/v1/chat/completions"},
                                {"POST", "/tokenize"},       {"POST", "/detokenize"},
                                {"GET", "/v1/models"},       {"none", "none"}};
constexpr const char* uncounted[] = {"/metrics", "/health", "/ping", "/ready", "/load", "/version"};
constexpr int status_classes = 4;  // 2xx to 5xx

std::size_t handler_of(std::string_view method, std::string_view path) {
  if (std::ranges::find(uncounted, path) != std::end(uncounted)) return std::size(handlers);
  if (path.starts_with("/v1/models/")) path = "/v1/models";
  const auto* const found = std::ranges::find_if(
      handlers, [&](const Handler& handler) { return handler.method == method && handler.path == path; });
  return std::min(static_cast<std::size_t>(found - handlers), std::size(handlers) - 1);
}

// Label texts that the table points to.
struct HttpValues {
  std::vector<std::string> texts;
  std::vector<const char*> requests, durations;

  HttpValues() {
    for (const Handler& handler : handlers) {
      const std::string labels = std::string("handler=\"") + handler.path + "\",method=\"" + handler.method + "\"";
      for (int status = 2; status < 2 + status_classes; ++status) {
        texts.push_back(labels + ",status=\"" + std::to_string(status) + "xx\"");
      }
      texts.push_back(labels);
    }
    for (std::size_t i = 0; i < texts.size(); ++i) {
      (i % (status_classes + 1) == status_classes ? durations : requests).push_back(texts[i].c_str());
    }
  }
};

const HttpValues& http_values() {
  static const HttpValues values;
  return values;
}

using K = MetricKind;
using L = MetricLabels;
using B = MetricBuckets;

// What the parent writes.
constexpr MetricRow replica_rows[] = {
    {Metric::requests_running, "vllm:num_requests_running", K::gauge, L::engine,
     "Number of requests in model execution batches."},
    {Metric::requests_waiting, "vllm:num_requests_waiting", K::gauge, L::engine,
     "Number of requests waiting to be processed."},
    {Metric::requests_waiting_by_reason, "vllm:num_requests_waiting_by_reason", K::gauge, L::engine,
     "Number of waiting requests by reason.", waiting_reasons},
    {Metric::kv_cache_usage, "vllm:kv_cache_usage_perc", K::gauge, L::engine,
     "KV-cache usage. 1 means 100 percent usage."},
    {Metric::engine_sleep_state, "vllm:engine_sleep_state", K::gauge, L::engine,
     "Engine sleep state; awake = 1 unless the engine sleeps.", sleep_states},
    {Metric::prefix_cache_queries, "vllm:prefix_cache_queries_total", K::counter, L::engine,
     "Prefix cache queries, in terms of number of queried tokens."},
    {Metric::prefix_cache_hits, "vllm:prefix_cache_hits_total", K::counter, L::engine,
     "Prefix cache hits, in terms of number of cached tokens."},
    {Metric::preemptions, "vllm:num_preemptions_total", K::counter, L::engine,
     "Cumulative number of preemptions from the engine."},
    {Metric::step_rows,
     "vllm:iteration_tokens_total",
     K::histogram,
     L::engine,
     "Histogram of number of tokens per engine step.",
     {},
     B::step_rows},
    {Metric::prefix_cache_resets, "chorus:prefix_cache_resets_total", K::counter, L::engine,
     "How often the replica was told to forget its prefix cache."},
    {Metric::kv_blocks, "chorus:kv_blocks", K::gauge, L::engine, "KV-cache blocks that the replica has."},
    {Metric::replica_ready, "chorus:replica_ready", K::gauge, L::engine, "1: the replica takes requests."},
    {Metric::replica_state, "chorus:replica_state", K::gauge, L::engine, "1: the state that the replica is in.",
     replica_states},
    {Metric::replica_deaths, "chorus:replica_deaths_total", K::counter, L::engine,
     "Incarnations of the replica that died."},
    {Metric::front_end_deaths, "chorus:front_end_deaths_total", K::counter, L::model, "Front ends that died."},
};

// What each front end writes.
constexpr MetricRow front_end_rows[] = {
    {Metric::prompt_tokens, "vllm:prompt_tokens_total", K::counter, L::engine, "Number of prefill tokens processed."},
    {Metric::prompt_tokens_cached, "vllm:prompt_tokens_cached_total", K::counter, L::engine,
     "Number of prompt tokens that the prefix cache had."},
    {Metric::prompt_tokens_by_source, "vllm:prompt_tokens_by_source_total", K::counter, L::engine,
     "Number of prompt tokens by source.", token_sources},
    {Metric::generation_tokens, "vllm:generation_tokens_total", K::counter, L::engine,
     "Number of generation tokens processed."},
    {Metric::request_success, "vllm:request_success_total", K::counter, L::engine,
     "Count of finished choices by reason.", finished_reasons},
    {Metric::request_prompt_tokens,
     "vllm:request_prompt_tokens",
     K::histogram,
     L::engine,
     "Number of prefill tokens processed, per request.",
     {},
     B::tokens},
    {Metric::request_generation_tokens,
     "vllm:request_generation_tokens",
     K::histogram,
     L::engine,
     "Number of generation tokens processed, per choice.",
     {},
     B::tokens},
    {Metric::request_max_num_generation_tokens,
     "vllm:request_max_num_generation_tokens",
     K::histogram,
     L::engine,
     "Histogram of maximum number of requested generation tokens.",
     {},
     B::tokens},
    {Metric::request_params_max_tokens,
     "vllm:request_params_max_tokens",
     K::histogram,
     L::engine,
     "Histogram of the max_tokens request parameter.",
     {},
     B::tokens},
    {Metric::request_params_n,
     "vllm:request_params_n",
     K::histogram,
     L::engine,
     "Histogram of the n request parameter.",
     {},
     B::choices},
    {Metric::request_num_preemptions,
     "vllm:request_num_preemptions",
     K::histogram,
     L::engine,
     "Histogram of preemptions per request.",
     {},
     B::preemptions},
    {Metric::request_prefill_computed_tokens,
     "vllm:request_prefill_kv_computed_tokens",
     K::histogram,
     L::engine,
     "Histogram of prompt tokens computed, without cached ones.",
     {},
     B::tokens},
    {Metric::time_to_first_token,
     "vllm:time_to_first_token_seconds",
     K::histogram,
     L::engine,
     "Histogram of time to first token in seconds.",
     {},
     B::first_token},
    {Metric::inter_token_latency,
     "vllm:inter_token_latency_seconds",
     K::histogram,
     L::engine,
     "Histogram of inter-token latency in seconds.",
     {},
     B::per_token},
    {Metric::time_per_output_token,
     "vllm:request_time_per_output_token_seconds",
     K::histogram,
     L::engine,
     "Histogram of a choice's mean time per output token in seconds.",
     {},
     B::per_token},
    {Metric::e2e_latency,
     "vllm:e2e_request_latency_seconds",
     K::histogram,
     L::engine,
     "Histogram of e2e request latency in seconds.",
     {},
     B::request},
    {Metric::queue_time,
     "vllm:request_queue_time_seconds",
     K::histogram,
     L::engine,
     "Histogram of time spent in WAITING phase for request.",
     {},
     B::request},
    {Metric::inference_time,
     "vllm:request_inference_time_seconds",
     K::histogram,
     L::engine,
     "Histogram of time spent in RUNNING phase for request.",
     {},
     B::request},
    {Metric::prefill_time,
     "vllm:request_prefill_time_seconds",
     K::histogram,
     L::engine,
     "Histogram of time spent in PREFILL phase for request.",
     {},
     B::request},
    {Metric::decode_time,
     "vllm:request_decode_time_seconds",
     K::histogram,
     L::engine,
     "Histogram of time spent in DECODE phase for request.",
     {},
     B::request},
    {Metric::admission_rejections, "vllm:admission_rejections_total", K::counter, L::model,
     "Requests refused because too many wait.", rejection_reasons},
    {Metric::http_requests, "http_requests_total", K::counter, L::none,
     "Total number of requests by method, status and handler."},
    {Metric::http_duration,
     "http_request_duration_seconds",
     K::histogram,
     L::none,
     "Latency until an answer is whole, by handler and method.",
     {},
     B::http},
    {Metric::requests_moved, "chorus:requests_moved_total", K::counter, L::model,
     "Requests that went on elsewhere, because their replica died or was drained."},
    {Metric::tokens_replayed, "chorus:tokens_replayed_total", K::counter, L::model,
     "Output tokens that a replica computed anew for a request that came from another one."},
    {Metric::prefix_placements, "chorus:prefix_placements_total", K::counter, L::model,
     "Requests that went to a replica that had part of their prompt, by prefix_affinity."},
    {Metric::prefix_placed_tokens, "chorus:prefix_placed_tokens_total", K::counter, L::model,
     "Prompt tokens that these replicas had, as far as was known."},
    {Metric::unknown_fields, "chorus:unknown_fields_total", K::counter, L::model,
     "Fields of requests that were ignored because nobody knows them."},
    {Metric::http_connections, "chorus:http_connections", K::gauge, L::model, "Open connections of clients."},
    {Metric::queued_requests, "chorus:queued_requests", K::gauge, L::model,
     "Prompts that were taken and have no token yet: what --max-num-queued-reqs bounds."},
    {Metric::queued_tokens, "chorus:queued_prompt_tokens", K::gauge, L::model,
     "Tokens of these prompts, of texts about: what --max-num-queued-tokens bounds."},
};

std::vector<MetricRow> make_rows() {
  std::vector<MetricRow> rows(std::begin(replica_rows), std::end(replica_rows));
  rows.insert(rows.end(), std::begin(front_end_rows), std::end(front_end_rows));
  for (MetricRow& row : rows) {
    if (row.metric == Metric::http_requests) row.values = http_values().requests;
    if (row.metric == Metric::http_duration) row.values = http_values().durations;
  }
  return rows;
}

const std::vector<MetricRow>& rows() {
  static const std::vector<MetricRow> table = make_rows();
  return table;
}

}  // namespace

std::span<const MetricRow> metric_rows() {
  return rows();
}

const MetricRow& row_of(Metric metric) {
  const MetricRow& row = rows()[static_cast<std::size_t>(metric)];
  CHECK(row.metric == metric, "{} is not in its place of the table", row.name);
  return row;
}

std::size_t http_request_value(std::string_view method, std::string_view path, int status) {
  const std::size_t handler = handler_of(method, path);
  if (handler == std::size(handlers)) return http_values().requests.size();
  return handler * status_classes + static_cast<std::size_t>(std::clamp(status / 100, 2, 1 + status_classes) - 2);
}

std::size_t http_duration_value(std::string_view method, std::string_view path) {
  return handler_of(method, path);
}

}  // namespace chorus

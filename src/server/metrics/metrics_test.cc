#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <map>
#include <sstream>

#include "server/metrics/engine_meter.h"
#include "server/metrics/metric_text.h"
#include "server/metrics/request_meter.h"

namespace chorus {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

constexpr Nanoseconds second = 1'000'000'000;

// The samples of a text by name and labels, as Prometheus's own reader would see them.
class Samples {
 public:
  explicit Samples(const MetricStore& store) : text_(metrics_text(store, {"m\"1", {{"block_size", "16"}}})) {
    std::istringstream lines(text_);
    for (std::string line; std::getline(lines, line);) {
      if (!line.starts_with("# ")) add(line);
    }
  }
  double of(const std::string& series) const {
    const auto found = values_.find(series);
    EXPECT_NE(found, values_.end()) << series;
    return found == values_.end() ? -1 : found->second;
  }
  // Of replica `engine`; `more`: further labels, each after a comma.
  double of(const std::string& name, int engine, const std::string& more = {}) const {
    return of(name + "{engine=\"" + std::to_string(engine) + "\",model_name=\"m\\\"1\"" + more + "}");
  }
  const std::string& text() const { return text_; }

 private:
  // NAME{LABELS} VALUE. Without std::regex: GCC 12 under -fsanitize=address takes it for a use of uninitialised values.
  void add(const std::string& line) {
    const std::size_t labels = line.find('{'), end = line.rfind("} ");
    const bool has_parts = labels != std::string::npos && end != std::string::npos && labels < end;
    ASSERT_TRUE(has_parts && is_name(line.substr(0, labels))) << line;
    std::size_t read = 0;
    const std::string value = line.substr(end + 2);
    EXPECT_TRUE(values_.emplace(line.substr(0, end + 1), std::stod(value, &read)).second) << "twice: " << line;
    EXPECT_EQ(read, value.size()) << line;
  }

  static bool is_name(const std::string& text) {
    const auto fits = [](char c) { return c == '_' || c == ':' || std::isalnum(static_cast<unsigned char>(c)) != 0; };
    return !text.empty() && std::isdigit(static_cast<unsigned char>(text[0])) == 0 && std::ranges::all_of(text, fits);
  }

  std::string text_;
  std::map<std::string, double> values_;
};

MetricStore store_of(int engines, int front_ends) {
  return MetricStore::create({engines, front_ends, 2048}).value();
}

TEST(MetricStore, AddsUpWhatTheProcessesCount) {
  const MetricStore store = store_of(2, 3);
  for (int front_end = 0; front_end < 3; ++front_end) {
    store.front_end(front_end).add(Metric::generation_tokens, 5, {1, 0});
    store.front_end(front_end).set(Metric::http_connections, 1.5);
  }
  store.front_end(2).clear_gauges();
  const Samples samples(store);
  EXPECT_EQ(samples.of("vllm:generation_tokens_total", 0), 0);
  EXPECT_EQ(samples.of("vllm:generation_tokens_total", 1), 15);
  EXPECT_EQ(samples.of("chorus:http_connections{model_name=\"m\\\"1\"}"), 3);
}

TEST(MetricStore, IsTheSameMemoryInAnotherProcess) {
  const MetricStore store = store_of(1, 1);
  const MetricStore other = MetricStore::open(UniqueFd(::dup(store.fd())), {1, 1, 2048}).value();
  other.front_end(0).add(Metric::generation_tokens, 7);
  EXPECT_EQ(store.counter(store.layout().at(Metric::generation_tokens, {})), 7U);
  EXPECT_FALSE(MetricStore::open(UniqueFd(::dup(store.fd())), {2, 1, 2048}).ok());
}

TEST(MetricText, HasVllmsNamesAndBuckets) {
  const MetricStore store = store_of(1, 1);
  const MetricSlot slot = store.front_end(0);
  slot.observe(Metric::inter_token_latency, 0.01);  // on a bound: within it
  slot.observe(Metric::inter_token_latency, 0.3);
  slot.observe(Metric::inter_token_latency, 100);
  const Samples samples(store);
  const std::string name = "vllm:inter_token_latency_seconds";
  EXPECT_EQ(samples.of(name + "_bucket", 0, ",le=\"0.01\""), 1);
  EXPECT_EQ(samples.of(name + "_bucket", 0, ",le=\"0.2\""), 1);
  EXPECT_EQ(samples.of(name + "_bucket", 0, ",le=\"1.0\""), 2);
  EXPECT_EQ(samples.of(name + "_bucket", 0, ",le=\"80.0\""), 2);
  EXPECT_EQ(samples.of(name + "_bucket", 0, ",le=\"+Inf\""), 3);
  EXPECT_DOUBLE_EQ(samples.of(name + "_sum", 0), 100.31);
  EXPECT_EQ(samples.of(name + "_count", 0), 3);
  // Tokens: 1, 2, 5, ... up to max_model_len.
  EXPECT_EQ(samples.of("vllm:request_prompt_tokens_bucket", 0, ",le=\"2000.0\""), 0);
  EXPECT_THAT(samples.text(), Not(HasSubstr("le=\"5000.0\"")));
  EXPECT_EQ(samples.of("vllm:cache_config_info{engine=\"0\",block_size=\"16\",num_gpu_blocks=\"0\"}"), 1);
  EXPECT_EQ(samples.of("vllm:request_success_total", 0, ",finished_reason=\"repetition\""), 0);
}

// Of a server behind an outer load balancer: the ranks of the others are not its own to speak of.
TEST(MetricText, ShowsTheReplicasOfThisServerAlone) {
  const MetricStore store = MetricStore::create({4, 1, 2048, 16, 2}).value();
  const Samples samples(store);
  EXPECT_EQ(samples.of("vllm:generation_tokens_total", 3), 0);
  EXPECT_EQ(samples.of("chorus:replica_ready", 2), 0);
  EXPECT_THAT(samples.text(),
              AllOf(Not(HasSubstr("engine=\"0\"")), Not(HasSubstr("engine=\"1\"")), Not(HasSubstr("engine=\"4\""))));
}

TEST(MetricTable, CountsRoutesButNotThoseThatMachinesPoll) {
  const auto value = [](std::string_view method, std::string_view path, int status) {
    return row_of(Metric::http_requests).values[http_request_value(method, path, status)];
  };
  EXPECT_STREQ(value("POST", "/v1/completions", 429), "handler=\"/v1/completions\",method=\"POST\",status=\"4xx\"");
  EXPECT_STREQ(value("GET", "/v1/models/x", 200), "handler=\"/v1/models\",method=\"GET\",status=\"2xx\"");
  EXPECT_STREQ(value("GET", "/x\"}", 404), "handler=\"none\",method=\"none\",status=\"4xx\"");
  EXPECT_EQ(http_duration_value("GET", "/metrics"), row_of(Metric::http_duration).values.size());
}

TextDelta token_delta(std::uint32_t choice, FinishReason finish = FinishReason::none, bool last = false) {
  TextDelta delta;
  delta.choice = choice;
  delta.token = 5;
  delta.finish = finish;
  delta.last = last;
  delta.dp_rank = 1;
  delta.prompt_tokens = 100;
  return delta;
}

TEST(RequestMeter, CountsPreemptionsOfAllChoicesOnceARequest) {
  const MetricStore store = store_of(2, 1);
  const MetricSlot slot = store.front_end(0);
  SamplingParams params;
  params.n = 2;
  RequestMeter meter(slot, params, 0);
  TextDelta one = token_delta(0), other = token_delta(1);
  one.preemptions = 2;
  other.preemptions = 1;
  meter.take(one, second);
  meter.take(other, second);
  meter.take(token_delta(0, FinishReason::length), 2 * second);
  meter.take(token_delta(1, FinishReason::length, true), 2 * second);
  const Samples samples(store);
  const std::string name = "vllm:request_num_preemptions";
  EXPECT_EQ(samples.of(name + "_bucket", 1, ",le=\"2.0\""), 0);
  EXPECT_EQ(samples.of(name + "_bucket", 1, ",le=\"3.0\""), 1);
  EXPECT_EQ(samples.of(name + "_sum", 1), 3);
}

TEST(RequestMeter, CountsTokensTimesAndFinishes) {
  const MetricStore store = store_of(2, 1);
  const MetricSlot slot = store.front_end(0);
  SamplingParams params;
  params.n = 2;
  params.max_tokens = 50;
  RequestMeter meter(slot, params, 10 * second);
  TextDelta first = token_delta(0);
  first.prefill = PrefillReport{64, 1'500'000};
  EXPECT_FALSE(meter.has_token());
  meter.take(first, 12 * second);
  EXPECT_TRUE(meter.has_token());
  meter.take(token_delta(0), 13 * second);
  meter.take(token_delta(1, FinishReason::stop), 13 * second);
  meter.take(token_delta(0, FinishReason::length, true), 15 * second);
  meter.end_aborted();  // what has ended does not end again

  const Samples samples(store);
  EXPECT_EQ(samples.of("vllm:prompt_tokens_total", 1), 100);
  EXPECT_EQ(samples.of("vllm:prompt_tokens_cached_total", 1), 64);
  EXPECT_EQ(samples.of("vllm:prompt_tokens_by_source_total", 1, ",source=\"local_compute\""), 36);
  EXPECT_EQ(samples.of("vllm:generation_tokens_total", 1), 4);
  EXPECT_EQ(samples.of("vllm:generation_tokens_total", 0), 0);
  EXPECT_EQ(samples.of("vllm:request_success_total", 1, ",finished_reason=\"stop\""), 1);
  EXPECT_EQ(samples.of("vllm:request_success_total", 1, ",finished_reason=\"length\""), 1);
  EXPECT_EQ(samples.of("vllm:request_success_total", 1, ",finished_reason=\"abort\""), 0);
  EXPECT_EQ(samples.of("vllm:time_to_first_token_seconds_sum", 1), 2);
  EXPECT_EQ(samples.of("vllm:request_prefill_time_seconds_sum", 1), 1.5);
  EXPECT_EQ(samples.of("vllm:request_queue_time_seconds_sum", 1), 0.5);
  EXPECT_EQ(samples.of("vllm:request_decode_time_seconds_sum", 1), 3);
  EXPECT_EQ(samples.of("vllm:request_inference_time_seconds_sum", 1), 4.5);
  EXPECT_EQ(samples.of("vllm:e2e_request_latency_seconds_sum", 1), 5);
  EXPECT_EQ(samples.of("vllm:inter_token_latency_seconds_sum", 1), 3);
  EXPECT_EQ(samples.of("vllm:inter_token_latency_seconds_count", 1), 2);
  EXPECT_EQ(samples.of("vllm:request_time_per_output_token_seconds_sum", 1), 1.5);
  EXPECT_EQ(samples.of("vllm:request_max_num_generation_tokens_sum", 1), 3);
  EXPECT_EQ(samples.of("vllm:request_generation_tokens_count", 1), 2);
  EXPECT_EQ(samples.of("vllm:request_params_n_sum", 1), 2);
}

TEST(RequestMeter, CountsWhatIsCutOff) {
  const MetricStore store = store_of(2, 1);
  const MetricSlot slot = store.front_end(0);
  RequestMeter unbegun(slot, {}, 0);
  unbegun.end_aborted();  // no replica has had it
  RequestMeter begun(slot, {}, 0);
  begun.take(token_delta(0), second);
  begun.end_aborted();
  const Samples samples(store);
  EXPECT_EQ(samples.of("vllm:request_success_total", 0, ",finished_reason=\"abort\""), 0);
  EXPECT_EQ(samples.of("vllm:request_success_total", 1, ",finished_reason=\"abort\""), 1);
  EXPECT_EQ(samples.of("vllm:e2e_request_latency_seconds_count", 1), 0);
}

ReplicaStatus status_of(std::uint64_t steps) {
  ReplicaStatus status;
  status.alive = true;
  status.condition = ReplicaCondition::ready;
  status.load.steps = steps;
  status.load.running = 3;
  status.load.waiting = 2;
  status.load.kv_blocks_total = 100;
  status.load.kv_blocks_free = 75;
  status.load.prefix_cache_queries = steps * 10;
  status.load.prefix_cache_hits = steps * 4;
  status.load.prompt_tokens = steps * 7;
  status.load.output_tokens = steps * 2;
  status.load.rows = steps * 9;
  status.load.steps_by_rows.assign(std::size(step_rows_bounds) + 1, 0);
  status.load.steps_by_rows[2] = steps;
  return status;
}

TEST(EngineMeter, CountsOverIncarnations) {
  const MetricStore store = store_of(1, 1);
  EngineMeter meter(store.parent(), 1);
  meter.take(std::vector{status_of(50)});
  ReplicaStatus dead = status_of(50);
  dead.alive = false;
  dead.condition = ReplicaCondition::restarting;
  dead.deaths = 1;
  meter.take(std::vector{dead});
  {
    const Samples samples(store);
    EXPECT_EQ(samples.of("vllm:num_requests_running", 0), 0);
    EXPECT_EQ(samples.of("chorus:replica_ready", 0), 0);
    EXPECT_EQ(samples.of("vllm:prefix_cache_hits_total", 0), 200);
  }
  ReplicaStatus again = status_of(5);
  again.deaths = 1;
  meter.take(std::vector{again});
  const Samples samples(store);
  EXPECT_EQ(samples.of("vllm:num_requests_running", 0), 3);
  EXPECT_EQ(samples.of("vllm:num_requests_waiting_by_reason", 0, ",reason=\"capacity\""), 2);
  EXPECT_EQ(samples.of("vllm:kv_cache_usage_perc", 0), 0.25);
  EXPECT_EQ(samples.of("vllm:prefix_cache_hits_total", 0), 220);
  EXPECT_EQ(samples.of("vllm:iteration_tokens_total_count", 0), 55);
  EXPECT_EQ(samples.of("vllm:iteration_tokens_total_sum", 0), 495);
  EXPECT_EQ(samples.of("vllm:iteration_tokens_total_bucket", 0, ",le=\"8.0\""), 0);
  EXPECT_EQ(samples.of("vllm:iteration_tokens_total_bucket", 0, ",le=\"16.0\""), 55);
  EXPECT_EQ(samples.of("chorus:replica_deaths_total", 0), 1);
}

TEST(EngineMeter, ShowsTheReplicasThatThereAre) {
  const MetricStore store = MetricStore::create({1, 1, 64, 4}).value();
  EngineMeter meter(store.parent(), 1);
  ReplicaStatus first = status_of(5), added = status_of(7);
  added.dp_rank = 1;
  first.condition = ReplicaCondition::draining;
  meter.take(std::vector{first, added});
  {
    const std::string text = metrics_text(store, {"m", {}});
    EXPECT_THAT(text, HasSubstr("chorus:replica_state{engine=\"0\",model_name=\"m\",state=\"draining\"} 1"));
    EXPECT_THAT(text, HasSubstr("chorus:replica_ready{engine=\"0\",model_name=\"m\"} 0"));
    EXPECT_THAT(text, HasSubstr("vllm:num_requests_running{engine=\"1\",model_name=\"m\"} 3"));
    EXPECT_THAT(text, Not(HasSubstr("engine=\"2\"")));
  }
  first.condition = ReplicaCondition::removed;
  meter.take(std::vector{first, added});
  const std::string text = metrics_text(store, {"m", {}});
  EXPECT_THAT(text, Not(HasSubstr("engine=\"0\"")));
  EXPECT_THAT(text, HasSubstr("engine=\"1\""));
}

TEST(EngineMeter, LogsWhatVllmsUsersLookFor) {
  EngineMeter meter(MetricSlot(), 1);
  meter.take(std::vector{status_of(0)});
  EXPECT_THAT(meter.log_lines(0), IsEmpty());
  meter.take(std::vector{status_of(100)});
  EXPECT_THAT(meter.log_lines(9 * second), IsEmpty());
  EXPECT_THAT(meter.log_lines(10 * second),
              ElementsAre("Engine 000: Avg prompt throughput: 70.0 tokens/s, Avg generation throughput: 20.0 tokens/s, "
                          "Running: 3 reqs, Waiting: 2 reqs, GPU KV cache usage: 25.0%, Prefix cache hit rate: 40.0%"));
  // It holds some, though nothing has moved; then it is idle.
  EXPECT_THAT(meter.log_lines(20 * second), ElementsAre(AllOf(HasSubstr("Running: 3"), HasSubstr("throughput: 0.0"))));
  ReplicaStatus idle = status_of(101);
  idle.load.running = idle.load.waiting = 0;
  meter.take(std::vector{idle});
  EXPECT_THAT(meter.log_lines(30 * second), ElementsAre(HasSubstr("Running: 0 reqs")));
  EXPECT_THAT(meter.log_lines(40 * second), IsEmpty());
}

}  // namespace
}  // namespace chorus

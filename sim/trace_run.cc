#include "trace_run.h"

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <unordered_map>
#include <utility>

#include "base/check.h"
#include "base/philox.h"
#include "cluster/dispatcher.h"
#include "event_queue.h"
#include "json/file.h"
#include "json/json.h"
#include "sched/scheduler.h"

namespace chorus::sim {
namespace {

constexpr std::int32_t trace_vocab_size = 32'000;
constexpr std::int32_t trace_block_size = 16;
constexpr PrefixKey trace_key = {1, 2};

std::vector<TokenId> prompt_of(const TraceRequest& request) {
  std::vector<TokenId> prompt;
  prompt.reserve(static_cast<std::size_t>(request.input_tokens));
  for (const std::uint64_t block : request.blocks) {
    for (std::uint32_t i = 0; i < trace_block_tokens / 4; ++i) {
      const auto words =
          philox4x32({i, 0, static_cast<std::uint32_t>(block), static_cast<std::uint32_t>(block >> 32)}, {});
      for (const std::uint32_t word : words) prompt.push_back(static_cast<TokenId>(word % trace_vocab_size));
    }
  }
  prompt.resize(static_cast<std::size_t>(request.input_tokens), 1);
  return prompt;
}

double percentile(std::vector<double>& values, double part) {
  if (values.empty()) return 0;
  const auto at = static_cast<std::ptrdiff_t>(part * static_cast<double>(values.size() - 1));
  std::ranges::nth_element(values, values.begin() + at);
  return values[static_cast<std::size_t>(at)];
}

double seconds(Nanoseconds time) {
  return static_cast<double>(time) * 1e-9;
}

struct TraceReplica {
  Placement placement;
  std::unique_ptr<Scheduler> scheduler;
  std::uint64_t submissions = 0;
  Nanoseconds reported_at = -1;
  bool stepping = false;
};

class TraceWorld {
 public:
  TraceWorld(const std::vector<TraceRequest>& trace, const TraceConfig& config)
      : trace_(trace), config_(config), dispatcher_(dispatcher_config(config), make_load_balancer(config.balancer)) {
    for (int rank = 0; rank < config.replicas; ++rank) {
      TraceReplica& replica = replicas_.emplace_back();
      replica.placement = {rank, 1};
      replica.scheduler = make_scheduler(scheduler_config(trace, config));
      dispatcher_.on_news({replica.placement, ReplicaNews::State::ready});
    }
  }

  TraceOutcome run() {
    for (std::size_t i = 0; i < trace_.size(); ++i) {
      const auto at = static_cast<Nanoseconds>(static_cast<double>(trace_[i].arrival) / config_.speed);
      queue_.at(at, [this, i] { arrive(trace_[i]); });
    }
    while (!queue_.empty()) queue_.step();
    CHECK(dispatcher_.ledger().requests() == 0, "{} requests have not ended", dispatcher_.ledger().requests());
    return outcome();
  }

 private:
  static DispatcherConfig dispatcher_config(const TraceConfig& config) {
    DispatcherConfig dispatcher;
    dispatcher.prefix_key = trace_key;
    dispatcher.block_size = trace_block_size;
    dispatcher.limits.sequences_per_replica_max = 2 * static_cast<std::uint32_t>(config.max_num_seqs);
    return dispatcher;
  }
  static SchedulerConfig scheduler_config(const std::vector<TraceRequest>& trace, const TraceConfig& config) {
    SchedulerConfig scheduler;
    scheduler.max_num_seqs = config.max_num_seqs;
    scheduler.max_num_batched_tokens = config.max_num_batched_tokens;
    scheduler.block_size = trace_block_size;
    scheduler.kv_blocks = config.kv_tokens / trace_block_size;
    scheduler.vocab_size = trace_vocab_size;
    scheduler.prefix_hash_key = trace_key.words();
    scheduler.feeds_prefixes = true;
    for (const TraceRequest& request : trace) {
      scheduler.max_model_len = std::max(scheduler.max_model_len, request.input_tokens + request.output_tokens);
    }
    return scheduler;
  }

  void arrive(const TraceRequest& from) {
    Request request;
    request.prompt = prompt_of(from);
    request.params.max_tokens = static_cast<std::uint32_t>(from.output_tokens);
    request.params.ignore_eos = true;
    const auto id = dispatcher_.submit(std::move(request), std::nullopt);
    CHECK(id.ok(), "{}", id.error().message);
    arrivals_.emplace(*id, queue_.now());
    pump();
  }

  void pump() {
    for (TraceReplica& replica : replicas_) {
      while (auto message = dispatcher_.take_message(replica.placement)) {
        CHECK(message->kind == ReplicaMessage::Kind::add, "nothing is aborted here");
        replica.scheduler->add(std::move(message->request));
        ++replica.submissions;
      }
      step(&replica);
    }
  }

  void step(TraceReplica* replica) {
    if (replica->stepping || !replica->scheduler->has_work()) return;
    const StepPlan& plan = replica->scheduler->schedule(queue_.now());
    if (plan.rows == 0) return;
    StepResult result;
    std::int32_t decoding = 0;
    for (const SequencePlan& sequence : plan.sequences) {
      result.sequences.emplace_back().token = sequence.sample ? 7 : -1;
      if (sequence.start >= sequence.prompt_length) ++decoding;
    }
    const Nanoseconds time =
        config_.step_time + decoding * config_.sequence_time + (plan.rows - decoding) * config_.prompt_token_time;
    replica->stepping = true;
    queue_.after(time, [this, replica, result = std::move(result)] { complete(replica, result); });
  }

  void complete(TraceReplica* replica, const StepResult& result) {
    replica->stepping = false;
    std::vector<TokenEvent> events;
    replica->scheduler->complete(result, queue_.now(), &events);
    for (TokenEvent& event : events) {
      if (event.prefill) note_first_token(event);
      CHECK(dispatcher_.on_event(replica->placement, std::move(event)).verdict == Verdict::accepted, "an event");
    }
    report(replica);
    std::vector<FleetEvent> taken;
    dispatcher_.take_events(&taken);
    pump();
  }

  void report(TraceReplica* replica) {
    const bool idle = !replica->scheduler->has_work();
    if (!idle && queue_.now() - replica->reported_at < config_.report_interval) return;
    replica->reported_at = queue_.now();
    const SchedulerStats stats = replica->scheduler->stats();
    dispatcher_.on_prefixes(replica->placement, replica->scheduler->take_prefix_changes());
    dispatcher_.on_report(replica->placement,
                          {stats.waiting, stats.running, stats.kv_blocks_free, replica->submissions});
  }

  void note_first_token(const TokenEvent& event) {
    const double first_token_s = seconds(queue_.now() - arrivals_.at(event.request));
    first_token_s_.push_back(first_token_s);
    waiting_s_.push_back(first_token_s - static_cast<double>(event.prefill->duration_us) * 1e-6);
    outcome_.cached_tokens += event.prefill->cached_tokens;
  }

  TraceOutcome outcome() {
    std::uint64_t computed = 0, most = 0;
    for (const TraceReplica& replica : replicas_) {
      const std::uint64_t tokens = replica.scheduler->stats().rows;
      computed += tokens;
      most = std::max(most, tokens);
    }
    outcome_.requests = trace_.size();
    for (const TraceRequest& request : trace_) {
      outcome_.prompt_tokens += static_cast<std::uint64_t>(request.input_tokens);
      outcome_.output_tokens += static_cast<std::uint64_t>(request.output_tokens);
    }
    outcome_.waiting_p50_s = percentile(waiting_s_, .5);
    outcome_.waiting_p99_s = percentile(waiting_s_, .99);
    outcome_.first_token_p50_s = percentile(first_token_s_, .5);
    outcome_.first_token_p99_s = percentile(first_token_s_, .99);
    outcome_.busiest = static_cast<double>(most) * config_.replicas / static_cast<double>(computed);
    outcome_.elapsed_s = seconds(queue_.now());
    return outcome_;
  }

  const std::vector<TraceRequest>& trace_;
  TraceConfig config_;
  EventQueue queue_;
  Dispatcher dispatcher_;
  std::vector<TraceReplica> replicas_;
  std::unordered_map<RequestId, Nanoseconds> arrivals_;
  std::vector<double> waiting_s_, first_token_s_;
  TraceOutcome outcome_;
};

Result<std::int64_t> number_of(const JsonObjectReader& line, const char* name) {
  const auto at = line.find(name);
  if (!at) return fail(ErrorCode::invalid_argument, "no \"{}\"", name);
  const Json value = line.value(*at);
  if (!value.is_number_integer()) return fail(ErrorCode::invalid_argument, "\"{}\" is no whole number", name);
  return value.get<std::int64_t>();
}

Result<TraceRequest> read_request(const JsonObjectReader& line) {
  TraceRequest request;
  CHORUS_TRY(const std::int64_t timestamp_ms, number_of(line, "timestamp"));
  CHORUS_TRY(const std::int64_t input, number_of(line, "input_length"));
  CHORUS_TRY(const std::int64_t output, number_of(line, "output_length"));
  request.arrival = timestamp_ms * 1'000'000;
  request.input_tokens = static_cast<std::int32_t>(std::clamp<std::int64_t>(input, 1, 1 << 24));
  request.output_tokens = static_cast<std::int32_t>(std::clamp<std::int64_t>(output, 1, 1 << 24));
  std::vector<std::int64_t> blocks;
  const auto at = line.find("hash_ids");
  if (!at || !line.integers(*at, &blocks)) return fail(ErrorCode::invalid_argument, "no list \"hash_ids\"");
  request.blocks.assign(blocks.begin(), blocks.end());
  return request;
}

}  // namespace

Result<std::vector<TraceRequest>> read_trace(const std::string& path) {
  CHORUS_TRY(const std::string text, read_file(path, std::size_t{1} << 30));
  std::vector<TraceRequest> trace;
  JsonObjectReader line;
  std::size_t number = 0;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    ++number;
    Result<void> read = line.read(std::string_view(text).substr(at, end - at));
    auto request = read.ok() ? read_request(line) : Result<TraceRequest>(read.error());
    if (!request.ok()) return with_context(request.error(), fmt::format("{}, line {}", path, number).c_str());
    trace.push_back(std::move(*request));
    at = end + 1;
  }
  return trace;
}

TraceOutcome run_trace(const std::vector<TraceRequest>& trace, const TraceConfig& config) {
  return TraceWorld(trace, config).run();
}

}  // namespace chorus::sim

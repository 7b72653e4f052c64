#include "bench/latency.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <unordered_map>

#include "base/clock.h"
#include "bench/statistics.h"
#include "exec/kv_capacity.h"

namespace chorus {
namespace {

constexpr int poll_ms = 100;

// All iterations' measurements, in seconds.
struct Latencies {
  std::vector<double> prefill_s;           // an iteration: submission until the whole batch has its first token
  std::vector<double> decode_s_per_token;  // an iteration: (last token - prefill) / (output_len - 1)
  std::vector<double> latency_s;           // an iteration: submission until the last token
  std::vector<double> gap_s;               // all gaps between two tokens of one request
};

double seconds(Nanoseconds duration) {
  return static_cast<double>(duration) * 1e-9;
}

// One batch through the engine: when each token came is all that counts.
class Batch {
 public:
  explicit Batch(TextEngine& engine) : engine_(engine) {}

  Result<void> run(std::vector<GenerationInput> inputs, const BenchHooks& hooks, Latencies* latencies) {
    const Nanoseconds started = monotonic_now();
    const std::uint32_t output_len = inputs.front().options.params.max_tokens;
    for (GenerationInput& input : inputs) {
      CHORUS_TRY(const TextRequestId id, engine_.add(std::move(input)));
      last_token_at_[id] = 0;
    }
    while (engine_.requests() > 0) {
      if (hooks.interrupted && hooks.interrupted()) return fail(ErrorCode::cancelled, "interrupted");
      deltas_.clear();
      CHORUS_TRY_VOID(engine_.poll(poll_ms, &deltas_));
      const Nanoseconds now = monotonic_now();
      for (const TextDelta& delta : deltas_) CHORUS_TRY_VOID(take(delta, now, latencies));
    }
    const double prefill_s = seconds(prefilled_at_ - started), latency_s = seconds(ended_at_ - started);
    latencies->prefill_s.push_back(prefill_s);
    latencies->latency_s.push_back(latency_s);
    if (output_len > 1) latencies->decode_s_per_token.push_back((latency_s - prefill_s) / (output_len - 1));
    return {};
  }

 private:
  Result<void> take(const TextDelta& delta, Nanoseconds now, Latencies* latencies) {
    if (delta.error) return fail(ErrorCode::internal, "a request of the batch failed: {}", *delta.error);
    if (!delta.token) return {};
    Nanoseconds& last = last_token_at_.at(delta.request);
    if (last == 0) prefilled_at_ = std::max(prefilled_at_, now);
    if (last != 0) latencies->gap_s.push_back(seconds(now - last));
    last = ended_at_ = now;
    return {};
  }

  TextEngine& engine_;
  std::unordered_map<TextRequestId, Nanoseconds> last_token_at_;  // 0: no token yet
  std::vector<TextDelta> deltas_;
  Nanoseconds prefilled_at_ = 0, ended_at_ = 0;
};

Json percentiles(const std::vector<double>& values) {
  if (values.empty()) return nullptr;
  return {{"p50", percentile(values, 50)}, {"p90", percentile(values, 90)}, {"p99", percentile(values, 99)}};
}

Json json_of(const Latencies& latencies, const FleetTimes& times, const LatencyOptions& options) {
  return {{"prefill_s", mean(latencies.prefill_s)},
          {"decode_s_per_token", mean(latencies.decode_s_per_token)},
          {"latency_s", mean(latencies.latency_s)},
          {"percentiles",
           {{"prefill_s", percentiles(latencies.prefill_s)},
            {"decode_s_per_token", percentiles(latencies.gap_s)},
            {"latency_s", percentiles(latencies.latency_s)}}},
          {"batch_size", options.batch_size},
          {"input_len", options.shape.input_len},
          {"output_len", options.shape.output_len},
          {"num_iters", options.shape.num_iters},
          {"warmup", options.shape.warmup},
          {"data_parallel_size", options.engine.parallel.data_parallel_size},
          {"load_s", times.load_s},
          {"ready_s", times.ready_s},
          {"profile", times.profile}};
}

std::string table(const Json& result, const LatencyOptions& options) {
  std::string text = fmt::format("latency of {}, {}, batch {}, {} + {} tokens, {} iterations\n", options.engine.model,
                                 result["profile"].get<std::string>(), options.batch_size, options.shape.input_len,
                                 options.shape.output_len, options.shape.num_iters);
  for (const char* name : {"prefill_s", "decode_s_per_token", "latency_s"}) {
    const Json& of = result["percentiles"][name];
    if (of.is_null()) continue;
    text += table_row(name, fmt::format("mean {:.6f}  p50 {:.6f}  p90 {:.6f}  p99 {:.6f}", result[name].get<double>(),
                                        of["p50"].get<double>(), of["p90"].get<double>(), of["p99"].get<double>()));
  }
  return text;
}

Plot plot_of(const Latencies& latencies, const LatencyOptions& options) {
  const auto panel = [](const char* title, const std::vector<double>& values) {
    return PlotPanel{title, "percentile", "ms", {{"", percentile_curve(values, 1000)}}};
  };
  return {"bench latency",
          fmt::format("{}, batches of {}, {} + {} tokens, {} iterations", options.engine.model, options.batch_size,
                      options.shape.input_len, options.shape.output_len, options.shape.num_iters),
          {panel("Prefill", latencies.prefill_s), panel("Between two tokens", latencies.gap_s),
           panel("Whole batch", latencies.latency_s)}};
}

}  // namespace

Result<BenchResult> measure_latency(const LatencyOptions& options, BenchModel model, const BenchHooks& hooks) {
  CHORUS_TRY_VOID(check_at_least("--batch-size", options.batch_size, 1));
  CHORUS_TRY(const EngineConfig engine, fit_to_kv_memory(options.engine, model.config, detect_node()));
  CHORUS_TRY_VOID(check_lengths(options.shape, engine, model.config));
  model.defaults.params.n = 1;
  model.tokenizer = nullptr;  // no text is made
  CHORUS_TRY(const auto fleet, BenchFleet::start(engine, model, hooks));
  const auto batches =
      static_cast<std::size_t>(options.shape.num_iters) + static_cast<std::size_t>(options.shape.warmup);
  std::function<void(const GenerationProgress&)> on_progress;
  if (hooks.begin_progress) on_progress = hooks.begin_progress("bench latency", batches);
  Latencies latencies;
  for (std::size_t round = 0; round < batches; ++round) {
    Latencies untimed;
    const bool counts = round >= static_cast<std::size_t>(options.shape.warmup);
    Batch batch(fleet->engine());
    CHORUS_TRY_VOID(batch.run(random_inputs(options.shape, model, options.engine.seed, options.batch_size, round),
                              hooks, counts ? &latencies : &untimed));
    if (on_progress) on_progress({round + 1, latencies.gap_s.size()});
  }
  BenchResult result;
  result.json = json_of(latencies, fleet->fleet().times(), options);
  result.table = table(result.json, options);
  result.plot = plot_of(latencies, options);
  return result;
}

}  // namespace chorus

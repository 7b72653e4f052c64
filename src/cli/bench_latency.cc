// chorus bench latency: one batch after the other; the time until every prompt has its first token, and the time a
// token after that.
#include <algorithm>
#include <nlohmann/json.hpp>
#include <unordered_map>

#include "cli/bench.h"
#include "cli/bench_commands.h"
#include "frontend/front_door.h"

namespace chorus {
namespace {

constexpr int poll_ms = 100;

struct LatencyOptions : BenchOptions {
  int batch_size = 8;
};

// All iterations' measurements, in seconds.
struct Latencies {
  std::vector<double> prefill_s;           // an iteration: submission until the whole batch has its first token
  std::vector<double> decode_s_per_token;  // an iteration: (last token - prefill) / (output_len - 1)
  std::vector<double> latency_s;           // an iteration: submission until the last token
  std::vector<double> gap_s;               // all gaps between two tokens of one request
};

// One batch through the fleet, token by token: when each came is all that counts, so no text is made.
class Batch {
 public:
  explicit Batch(Fleet& fleet) : fleet_(fleet) {}

  Result<void> run(const std::vector<GenerationInput>& inputs, Latencies* latencies) {
    const Nanoseconds started = monotonic_now();
    left_ = inputs.size();
    for (const GenerationInput& input : inputs) {
      Request request;
      request.params = input.options.params;
      request.params.seed = input.options.seed.value_or(seed_for(0, *input.prompt_token_ids));
      request.prompt = *input.prompt_token_ids;
      CHORUS_TRY(const RequestId id, fleet_.submit(std::move(request), std::nullopt));
      last_token_at_[id] = 0;
    }
    while (left_ > 0) {
      if (interrupted()) return fail(ErrorCode::cancelled, "interrupted");
      events_.clear();
      CHORUS_TRY_VOID(fleet_.poll(poll_ms, &events_));
      const Nanoseconds now = monotonic_now();
      for (const FleetEvent& event : events_) CHORUS_TRY_VOID(take(event.event, now, latencies));
    }
    const double prefill_s = seconds(prefilled_at_ - started), latency_s = seconds(ended_at_ - started);
    latencies->prefill_s.push_back(prefill_s);
    latencies->latency_s.push_back(latency_s);
    const std::uint32_t output_len = inputs.front().options.params.max_tokens;
    if (output_len > 1) latencies->decode_s_per_token.push_back((latency_s - prefill_s) / (output_len - 1));
    return {};
  }

 private:
  static double seconds(Nanoseconds duration) { return static_cast<double>(duration) * 1e-9; }

  Result<void> take(const TokenEvent& event, Nanoseconds now, Latencies* latencies) {
    if (event.finish == FinishReason::error)
      return fail(ErrorCode::internal, "a request of the batch failed: {}", event.error);
    Nanoseconds& last = last_token_at_.at(event.request);
    if (event.token) {
      if (last == 0) prefilled_at_ = std::max(prefilled_at_, now);
      if (last != 0) latencies->gap_s.push_back(seconds(now - last));
      last = ended_at_ = now;
    }
    if (event.finish != FinishReason::none) --left_;
    return {};
  }

  Fleet& fleet_;
  std::unordered_map<RequestId, Nanoseconds> last_token_at_;  // 0: no token yet
  std::vector<FleetEvent> events_;
  std::size_t left_ = 0;
  Nanoseconds prefilled_at_ = 0, ended_at_ = 0;
};

Json percentiles(const std::vector<double>& values) {
  if (values.empty()) return nullptr;
  return {{"p50", percentile(values, 50)}, {"p90", percentile(values, 90)}, {"p99", percentile(values, 99)}};
}

double mean(const std::vector<double>& values) {
  double sum = 0;
  for (const double value : values) sum += value;
  return values.empty() ? 0 : sum / static_cast<double>(values.size());
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
          {"input_len", options.input_len},
          {"output_len", options.output_len},
          {"num_iters", options.num_iters},
          {"warmup", options.warmup},
          {"data_parallel_size", options.engine.parallel.data_parallel_size},
          {"load_s", times.load_s},
          {"ready_s", times.ready_s},
          {"profile", times.profile}};
}

std::string table(const Json& result, const LatencyOptions& options) {
  std::string text = fmt::format("latency of {}, {}, batch {}, {} + {} tokens, {} iterations\n", options.engine.model,
                                 result["profile"].get<std::string>(), options.batch_size, options.input_len,
                                 options.output_len, options.num_iters);
  for (const char* name : {"prefill_s", "decode_s_per_token", "latency_s"}) {
    const Json& of = result["percentiles"][name];
    if (of.is_null()) continue;
    text += table_row(name, fmt::format("mean {:.6f}  p50 {:.6f}  p90 {:.6f}  p99 {:.6f}", result[name].get<double>(),
                                        of["p50"].get<double>(), of["p90"].get<double>(), of["p99"].get<double>()));
  }
  return text;
}

Result<int> run(const LatencyOptions& options) {
  CHORUS_TRY(BenchModel model, prepare_bench_model(options));
  CHORUS_TRY_VOID(check_at_least("--batch-size", options.batch_size, 1));
  CHORUS_TRY_VOID(check_lengths(options, model.config));
  model.defaults.params.n = 1;
  CHORUS_TRY(BenchJson file, BenchJson::open(options.output_json));
  CHORUS_TRY(const auto fleet, Fleet::start(options.engine, model.config, interrupted));
  ProgressLine progress("bench latency", options.disable_progress_bars);
  Latencies latencies;
  for (int iteration = -options.warmup; iteration < options.num_iters; ++iteration) {
    Latencies untimed;
    const auto round = static_cast<std::uint64_t>(iteration + options.warmup);
    const auto inputs = random_inputs(options, model, options.batch_size, round);
    Batch batch(*fleet);
    const auto ran = batch.run(inputs, iteration < 0 ? &untimed : &latencies);
    progress.update({round + 1, static_cast<std::size_t>(options.num_iters + options.warmup), latencies.gap_s.size()});
    if (!ran.ok()) progress.finish();
    CHORUS_TRY_VOID(ran);
  }
  progress.finish();
  const Json result = json_of(latencies, fleet->times(), options);
  std::fputs(table(result, options).c_str(), stdout);
  CHORUS_TRY_VOID(file.write(result));
  return exit_done;
}

}  // namespace

std::function<Result<int>()> declare_bench_latency(Options& options) {
  auto values = std::make_shared<LatencyOptions>();
  values->input_len = 32;
  values->output_len = 128;
  values->num_iters = 10;
  values->warmup = 2;
  options.number("--batch-size", &values->batch_size, "prompts at once");
  declare_bench_options(options, values.get(), "batches that count; each has fresh prompts", "untimed batches first");
  return [values] { return run(*values); };
}

}  // namespace chorus

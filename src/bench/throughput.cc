#include "bench/throughput.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "exec/kv_capacity.h"

namespace chorus {
namespace {

Result<void> check(const ThroughputOptions& options, const EngineConfig& engine, const BenchModel& model) {
  if (!options.rows.empty()) return {};
  CHORUS_TRY_VOID(check_at_least("--num-prompts", options.num_prompts, 1));
  return check_lengths(options.shape, engine, model.config);
}

// What is measured in each iteration. Rows of a file are the same each time, random prompts are fresh.
std::vector<GenerationInput> inputs_of(const ThroughputOptions& options, const BenchModel& model, int iteration) {
  if (!options.rows.empty()) return options.rows;
  return random_inputs(options.shape, model, options.engine.seed, options.num_prompts,
                       static_cast<std::uint64_t>(iteration));
}

Json json_of(const BenchRun& run, const FleetTimes& times, std::uint64_t rss_bytes, const ThroughputOptions& options) {
  return {{"requests_per_second", run.requests_per_second()},
          {"output_tokens_per_second", run.output_tokens_per_second()},
          {"total_tokens_per_second", run.total_tokens_per_second()},
          {"elapsed_s", run.elapsed_s},
          {"load_s", times.load_s},
          {"ready_s", times.ready_s},
          {"peak_rss_bytes", rss_bytes},
          {"weight_bytes", times.weight_bytes},
          {"data_parallel_size", options.engine.parallel.data_parallel_size},
          {"profile", times.profile},
          {"num_requests", run.requests},
          {"num_failed", run.failed},
          {"prompt_tokens", run.prompt_tokens},
          {"output_tokens", run.output_tokens},
          {"num_iters", options.shape.num_iters}};
}

std::string table(const BenchRun& run, const FleetTimes& times, std::uint64_t rss_bytes,
                  const ThroughputOptions& options) {
  std::string text = fmt::format("throughput of {}, {}, {} replicas\n", options.engine.model, times.profile,
                                 options.engine.parallel.data_parallel_size);
  text += table_row("requests", fmt::format("{} ({} prompt tokens, {} output tokens)", run.requests, run.prompt_tokens,
                                            run.output_tokens));
  text += table_row("elapsed", fmt::format("{:.3f} s", run.elapsed_s));
  text += table_row("requests per second", fmt::format("{:.2f}", run.requests_per_second()));
  text += table_row("output tokens per second", fmt::format("{:.1f}", run.output_tokens_per_second()));
  text += table_row("total tokens per second", fmt::format("{:.1f}", run.total_tokens_per_second()));
  text += table_row("load, ready", fmt::format("{:.2f} s, {:.2f} s", times.load_s, times.ready_s));
  text += table_row("memory, of it weights",
                    fmt::format("{:.1f} MiB, {:.1f} MiB", static_cast<double>(rss_bytes) / (1 << 20),
                                static_cast<double>(times.weight_bytes) / (1 << 20)));
  return text;
}

// Each run, and the one that counts.
Plot plot_of(const std::vector<BenchRun>& runs, const BenchRun& middle, const ThroughputOptions& options) {
  PlotSeries measured{"a run", {}}, median{"the median", {}, true};
  for (const BenchRun& run : runs) {
    const auto number = static_cast<double>(measured.points.size() + 1);
    measured.points.emplace_back(number, run.output_tokens_per_second());
    median.points.emplace_back(number, middle.output_tokens_per_second());
  }
  return {"bench throughput",
          fmt::format("{}, {} requests, {} replicas", options.engine.model, middle.requests,
                      options.engine.parallel.data_parallel_size),
          {{"Output tokens per second", "run", "tokens/s", {std::move(measured), std::move(median)}, true}}};
}

}  // namespace

Result<BenchResult> measure_throughput(const ThroughputOptions& options, const BenchModel& model,
                                       const BenchHooks& hooks) {
  CHORUS_TRY(const EngineConfig engine, fit_to_kv_memory(options.engine, model.config, detect_node()));
  CHORUS_TRY_VOID(check(options, engine, model));
  CHORUS_TRY(const auto fleet, BenchFleet::start(engine, model, hooks));
  CHORUS_TRY_VOID(warm_up(options.shape, model, *fleet, hooks));
  std::uint64_t rss_bytes = fleet_rss_bytes(fleet->fleet());
  std::vector<BenchRun> runs;
  for (int iteration = 0; iteration < options.shape.num_iters; ++iteration) {
    CHORUS_TRY(runs.emplace_back(),
               run_workload(*fleet, inputs_of(options, model, iteration), "bench throughput", hooks));
    rss_bytes = std::max(rss_bytes, fleet_rss_bytes(fleet->fleet()));
  }
  const BenchRun middle = median_run(runs);
  const FleetTimes times = fleet->fleet().times();
  return BenchResult{json_of(middle, times, rss_bytes, options), table(middle, times, rss_bytes, options),
                     middle.failed, middle.first_error, plot_of(runs, middle, options)};
}

}  // namespace chorus

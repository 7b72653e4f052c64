#include "bench/scaling.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/log.h"
#include "config/node.h"
#include "exec/kv_capacity.h"

namespace chorus {
namespace {

// What was measured at one size.
struct SizeResult {
  int data_parallel_size = 0;
  std::vector<BenchRun> runs;
  FleetTimes times;
  std::uint64_t rss_bytes = 0;
  BenchRun middle() const { return median_run(runs); }
};

EngineConfig engine_at(const ScalingOptions& options, int size, int threads) {
  EngineConfig engine = options.engine;
  engine.parallel.data_parallel_size = size;
  engine.threads = threads;
  return engine;
}

Result<void> measure_once(const ScalingOptions& options, const BenchModel& model, int threads,
                          const std::vector<GenerationInput>& inputs, const BenchHooks& hooks, SizeResult* result) {
  CHORUS_TRY(const EngineConfig engine,
             fit_to_kv_memory(engine_at(options, result->data_parallel_size, threads), model.config, detect_node()));
  CHORUS_TRY_VOID(check_lengths(options.shape, engine, model.config));
  CHORUS_TRY(const auto fleet, BenchFleet::start(engine, model, hooks));
  CHORUS_TRY_VOID(warm_up(options.shape, model, *fleet, hooks));
  const std::string what = fmt::format("bench scaling, {} replicas", result->data_parallel_size);
  CHORUS_TRY(const BenchRun run, run_workload(*fleet, inputs, what, hooks));
  if (run.failed > 0)
    return fail(ErrorCode::internal, "{} of {} requests failed; the first one: {}", run.failed, inputs.size(),
                run.first_error);
  result->runs.push_back(run);
  result->times = fleet->fleet().times();
  result->rss_bytes = std::max(result->rss_bytes, fleet_rss_bytes(fleet->fleet()));
  return {};
}

// Output tokens per second and replica, over that of the smallest size (1, as a rule): 1 is perfect.
double efficiency(const SizeResult& result, const std::vector<SizeResult>& all) {
  const auto per_replica = [](const SizeResult& of) {
    return of.middle().output_tokens_per_second() / of.data_parallel_size;
  };
  const auto smaller = [](const SizeResult& a, const SizeResult& b) {
    return a.data_parallel_size < b.data_parallel_size;
  };
  return per_replica(result) / per_replica(*std::min_element(all.begin(), all.end(), smaller));
}

Json json_of(const std::vector<SizeResult>& results, const ScalingOptions& options, int threads, int cores) {
  Json list = Json::array();
  for (const SizeResult& result : results) {
    const BenchRun middle = result.middle();
    Json elapsed = Json::array();
    for (const BenchRun& run : result.runs) elapsed.push_back(run.elapsed_s);
    list.push_back({{"data_parallel_size", result.data_parallel_size},
                    {"efficiency", efficiency(result, results)},
                    {"oversubscribed", result.data_parallel_size * threads > cores},
                    {"requests_per_second", middle.requests_per_second()},
                    {"output_tokens_per_second", middle.output_tokens_per_second()},
                    {"total_tokens_per_second", middle.total_tokens_per_second()},
                    {"elapsed_s", middle.elapsed_s},
                    {"elapsed_s_of_runs", elapsed},
                    {"load_s", result.times.load_s},
                    {"ready_s", result.times.ready_s},
                    {"peak_rss_bytes", result.rss_bytes},
                    {"weight_bytes", result.times.weight_bytes},
                    {"profile", result.times.profile}});
  }
  return {{"results", list},
          {"num_prompts", options.num_prompts},
          {"input_len", options.shape.input_len},
          {"output_len", options.shape.output_len},
          {"threads", threads},
          {"cores", cores},
          {"num_iters", options.shape.num_iters}};
}

std::string table(const Json& result, const ScalingOptions& options) {
  const int threads = result["threads"].get<int>(), cores = result["cores"].get<int>();
  std::string text =
      fmt::format("scaling of {}, {}: {} prompts of {} + {} tokens, {} threads a replica, {} cores, median of {}\n",
                  options.engine.model, result["results"][0]["profile"].get<std::string>(), options.num_prompts,
                  options.shape.input_len, options.shape.output_len, threads, cores, options.shape.num_iters);
  text += "  replicas  elapsed_s  requests/s  output tokens/s  memory MiB  efficiency\n";
  for (const Json& row : result["results"]) {
    text += fmt::format("  {:>8}  {:>9.3f}  {:>10.2f}  {:>15.1f}  {:>10.1f}  {:>10.3f}{}\n",
                        row["data_parallel_size"].get<int>(), row["elapsed_s"].get<double>(),
                        row["requests_per_second"].get<double>(), row["output_tokens_per_second"].get<double>(),
                        row["peak_rss_bytes"].get<double>() / (1 << 20), row["efficiency"].get<double>(),
                        row["oversubscribed"].get<bool>() ? "  (more threads than cores)" : "");
  }
  return text;
}

// Against the smallest size times as many replicas.
Plot plot_of(const std::vector<SizeResult>& results, const ScalingOptions& options, int threads) {
  std::vector<SizeResult> ascending = results;
  std::ranges::sort(ascending, {}, &SizeResult::data_parallel_size);
  const double one = ascending.front().middle().output_tokens_per_second() / ascending.front().data_parallel_size;
  PlotSeries measured{"measured", {}}, ideal{"ideal", {}, true}, efficiencies{"measured", {}}, all{"ideal", {}, true};
  for (const SizeResult& result : ascending) {
    const double size = result.data_parallel_size;
    measured.points.emplace_back(size, result.middle().output_tokens_per_second());
    ideal.points.emplace_back(size, one * size);
    efficiencies.points.emplace_back(size, efficiency(result, results));
    all.points.emplace_back(size, 1);
  }
  return {"bench scaling",
          fmt::format("{}, {} prompts of {} + {} tokens, {} threads a replica, median of {} runs", options.engine.model,
                      options.num_prompts, options.shape.input_len, options.shape.output_len, threads,
                      options.shape.num_iters),
          {{"Throughput", "replicas", "output tokens/s", {std::move(measured), std::move(ideal)}, true},
           {"Efficiency", "replicas", "of the smallest size's", {std::move(efficiencies), std::move(all)}, true}}};
}

}  // namespace

Result<BenchResult> measure_scaling(const ScalingOptions& options, const BenchModel& model, const BenchHooks& hooks) {
  CHORUS_TRY_VOID(check_at_least("--num-prompts", options.num_prompts, 1));
  CHORUS_TRY_VOID(check_lengths(options.shape, options.engine, model.config));
  const int size_max = *std::max_element(options.sizes.begin(), options.sizes.end()), cores = detect_node().cores();
  const int threads = options.engine.threads > 0 ? options.engine.threads : std::max(1, cores / size_max);
  std::vector<SizeResult> results(options.sizes.size());
  for (std::size_t i = 0; i < results.size(); ++i) {
    results[i].data_parallel_size = options.sizes[i];
    CHORUS_TRY_VOID(validate(engine_at(options, options.sizes[i], threads)));
  }
  if (static_cast<std::int64_t>(options.num_prompts) < std::int64_t{2} * size_max * options.engine.max_num_seqs) {
    log(LogLevel::warning,
        "--num-prompts {} leaves batches of {} replicas half empty, which costs them efficiency: give {} or a smaller "
        "--max-num-seqs",
        options.num_prompts, size_max, 4 * size_max * options.engine.max_num_seqs);
  }
  const auto inputs = random_inputs(options.shape, model, options.engine.seed, options.num_prompts, 0);
  for (int iteration = 0; iteration < options.shape.num_iters; ++iteration) {
    for (SizeResult& result : results) {
      CHORUS_TRY_VOID(measure_once(options, model, threads, inputs, hooks, &result));
    }
  }
  BenchResult result;
  result.json = json_of(results, options, threads, cores);
  result.table = table(result.json, options);
  result.plot = plot_of(results, options, threads);
  return result;
}

}  // namespace chorus

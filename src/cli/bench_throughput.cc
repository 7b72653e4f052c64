// chorus bench throughput: all prompts at once, how fast they are done.
#include <nlohmann/json.hpp>

#include "base/log.h"
#include "cli/bench.h"
#include "cli/bench_commands.h"
#include "cli/prompt_rows.h"

namespace chorus {
namespace {

struct ThroughputOptions : BenchOptions {
  int num_prompts = 0;
  std::string input;
};

// The rows of --input as generate would run them; --output-len makes each give exactly that many tokens.
Result<std::vector<GenerationInput>> read_inputs(const ThroughputOptions& options, const BenchModel& model) {
  CHORUS_TRY(const ChatFormat chat, ChatFormat::load(options.engine.model));
  PromptRows rows;
  CHORUS_TRY_VOID(read_prompt_file(options.input, chat, model.defaults, &rows));
  if (rows.inputs.empty())
    return fail(ErrorCode::invalid_argument, "{}: no rows: give at least one prompt", options.input);
  if (options.num_prompts > 0 && rows.inputs.size() > static_cast<std::size_t>(options.num_prompts)) {
    rows.inputs.resize(static_cast<std::size_t>(options.num_prompts));
  }
  for (GenerationInput& input : rows.inputs) {
    if (options.output_len == 0) continue;
    input.options.params.max_tokens = static_cast<std::uint32_t>(options.output_len);
    input.options.params.ignore_eos = true;
  }
  return rows.inputs;
}

// What is measured in each iteration. Rows of a file are the same each time, random prompts are fresh.
Result<std::vector<GenerationInput>> inputs_of(const ThroughputOptions& options, const BenchModel& model,
                                               int iteration) {
  if (!options.input.empty()) return read_inputs(options, model);
  return random_inputs(options, model, options.num_prompts, static_cast<std::uint64_t>(iteration));
}

Result<void> complete(ThroughputOptions* options, const BenchModel& model) {
  if (!options->input.empty()) {
    if (options->input_len != 0) return fail(ErrorCode::invalid_argument, "--input-len and --input: give one of them");
    CHORUS_TRY_VOID(check_at_least("--output-len", options->output_len, 0));
    return check_at_least("--num-prompts", options->num_prompts, 0);
  }
  if (options->num_prompts == 0) options->num_prompts = 256;
  if (options->input_len == 0) options->input_len = 128;
  if (options->output_len == 0) options->output_len = 128;
  CHORUS_TRY_VOID(check_at_least("--num-prompts", options->num_prompts, 1));
  return check_lengths(*options, model.config);
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
          {"num_iters", options.num_iters}};
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

Result<int> run(ThroughputOptions& options) {
  CHORUS_TRY(const BenchModel model, prepare_bench_model(options));
  CHORUS_TRY_VOID(complete(&options, model));
  CHORUS_TRY(std::vector<GenerationInput> inputs, inputs_of(options, model, 0));
  CHORUS_TRY(BenchJson file, BenchJson::open(options.output_json));
  CHORUS_TRY(const auto fleet, Fleet::start(options.engine, model.config, interrupted));
  CHORUS_TRY_VOID(warm_up(options, model, options.engine, *fleet));
  std::uint64_t rss_bytes = fleet_rss_bytes(*fleet);
  std::vector<BenchRun> runs;
  for (int iteration = 0; iteration < options.num_iters; ++iteration) {
    if (iteration > 0) {
      CHORUS_TRY(inputs, inputs_of(options, model, iteration));
    }
    ProgressLine progress("bench throughput", options.disable_progress_bars);
    CHORUS_TRY(runs.emplace_back(), run_workload(model, options.engine, *fleet, inputs, progress));
    rss_bytes = std::max(rss_bytes, fleet_rss_bytes(*fleet));
  }
  const BenchRun middle = median_run(runs);
  std::fputs(table(middle, fleet->times(), rss_bytes, options).c_str(), stdout);
  CHORUS_TRY_VOID(file.write(json_of(middle, fleet->times(), rss_bytes, options)));
  if (middle.failed == 0) return exit_done;
  log(LogLevel::error, "{} of {} requests failed; the first one: {}", middle.failed, inputs.size(), middle.first_error);
  return exit_rows_failed;
}

}  // namespace

std::function<Result<int>()> declare_bench_throughput(Options& options) {
  auto values = std::make_shared<ThroughputOptions>();
  values->num_iters = 1;
  values->warmup = 1;
  options.number("--num-prompts", &values->num_prompts,
                 "random prompts (0: 256), or at most that many rows of --input (0: all)");
  options.text("--input", &values->input, "JSON lines as generate reads them, in place of random prompts");
  declare_bench_options(options, values.get(),
                        "times that all prompts are run, with fresh random ones; the median counts",
                        "untimed prompts on each replica first");
  return [values] { return run(*values); };
}

}  // namespace chorus

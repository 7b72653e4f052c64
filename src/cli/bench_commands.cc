// chorus bench: the options of its subcommands. What they measure is in bench/.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/text_values.h"
#include "bench/kernels.h"
#include "bench/latency.h"
#include "bench/scaling.h"
#include "bench/throughput.h"
#include "cli/bench_report.h"
#include "cli/commands.h"
#include "cli/prompt_rows.h"
#include "frontend/prompt_line.h"
#include "frontend/read_model.h"

namespace chorus {
namespace {

// What the subcommands that start a fleet of their own take beside their own.
struct FleetBenchOptions : BenchOptions {
  std::vector<Options::GivenOption> sampling;
};

void declare_shared(Options& options, EngineConfig* engine, BenchShape* shape, FleetBenchOptions* values,
                    const char* num_iters_help, const char* warmup_help) {
  options.positional(
      "MODEL", &engine->model,
      "Hugging Face model directory or .gguf file; with --load-format dummy config.json alone is enough");
  options.number("--input-len", &shape->input_len, "tokens of each random prompt");
  options.number("--output-len", &shape->output_len, "tokens generated for each prompt, whatever the model says");
  options.number("--num-iters", &shape->num_iters, num_iters_help);
  options.number("--warmup", &shape->warmup, warmup_help);
  values->declare(options);
  options.engine(engine);
  options.sampling(&values->sampling);
}

Result<BenchModel> prepare_model(const EngineConfig& engine, const BenchShape& shape,
                                 const FleetBenchOptions& options) {
  CHORUS_TRY_VOID(check_at_least("--num-iters", shape.num_iters, 1));
  CHORUS_TRY_VOID(check_at_least("--warmup", shape.warmup, 0));
  BenchModel model;
  CHORUS_TRY(ModelConfig config, read_model(engine));
  CHORUS_TRY(TextModel text, with_tokenizer(std::move(config)));
  model.config = std::move(text.config);
  model.tokenizer = std::move(text.tokenizer);
  model.defaults = default_generation_options(model.config, engine.generation_config != "chorus");
  CHORUS_TRY_VOID(apply_given(options.sampling, &model.defaults));
  return model;
}

// --- throughput

struct ThroughputCommand : FleetBenchOptions {
  std::string input;
  ThroughputOptions what;
};

// The rows of --input as generate would run them; --output-len makes each give exactly that many tokens.
Result<std::vector<GenerationInput>> read_rows(const ThroughputCommand& command, const BenchModel& model) {
  const ThroughputOptions& what = command.what;
  CHORUS_TRY(const ChatFormat chat, ChatFormat::load(what.engine.model));
  CHORUS_TRY(PromptReader reader, PromptReader::open(command.input, &chat, model.defaults));
  std::vector<GenerationInput> rows;
  while (true) {
    CHORUS_TRY(std::optional<PromptLine> line, reader.next());
    if (!line) break;
    if (what.num_prompts > 0 && rows.size() == static_cast<std::size_t>(what.num_prompts)) continue;
    GenerationInput& row = rows.emplace_back(std::move(line->input));
    if (what.shape.output_len == 0) continue;
    row.options.params.max_tokens = static_cast<std::uint32_t>(what.shape.output_len);
    row.options.params.ignore_eos = true;
  }
  if (rows.empty()) return fail(ErrorCode::invalid_argument, "{}: no rows: give at least one prompt", command.input);
  return rows;
}

Result<void> complete(ThroughputCommand* command, const BenchModel& model) {
  ThroughputOptions& what = command->what;
  if (command->input.empty()) {
    if (what.num_prompts == 0) what.num_prompts = 256;
    if (what.shape.input_len == 0) what.shape.input_len = 128;
    if (what.shape.output_len == 0) what.shape.output_len = 128;
    return {};
  }
  if (what.shape.input_len != 0) return fail(ErrorCode::invalid_argument, "--input-len and --input: give one of them");
  CHORUS_TRY_VOID(check_at_least("--output-len", what.shape.output_len, 0));
  CHORUS_TRY_VOID(check_at_least("--num-prompts", what.num_prompts, 0));
  CHORUS_TRY(what.rows, read_rows(*command, model));
  return {};
}

Result<int> run(ThroughputCommand& command) {
  CHORUS_TRY(const BenchModel model, prepare_model(command.what.engine, command.what.shape, command));
  CHORUS_TRY_VOID(complete(&command, model));
  command.inputs = {command.input};
  return report(command, [&](const BenchHooks& hooks) { return measure_throughput(command.what, model, hooks); });
}

std::function<Result<int>()> declare_bench_throughput(Options& options) {
  auto command = std::make_shared<ThroughputCommand>();
  command->what.num_prompts = 0;
  command->what.shape = {0, 0, 1, 1};
  options.number("--num-prompts", &command->what.num_prompts,
                 "random prompts (0: 256), or at most that many rows of --input (0: all)");
  options.text("--input", &command->input, "JSON lines as generate reads them, in place of random prompts");
  declare_shared(options, &command->what.engine, &command->what.shape, command.get(),
                 "times that all prompts are run, with fresh random ones; the median counts",
                 "untimed prompts on each replica first");
  return [command] { return run(*command); };
}

// --- latency

struct LatencyCommand : FleetBenchOptions {
  LatencyOptions what;
};

Result<int> run(const LatencyCommand& command) {
  CHORUS_TRY(const BenchModel model, prepare_model(command.what.engine, command.what.shape, command));
  return report(command, [&](const BenchHooks& hooks) { return measure_latency(command.what, model, hooks); });
}

std::function<Result<int>()> declare_bench_latency(Options& options) {
  auto command = std::make_shared<LatencyCommand>();
  command->what.shape = {32, 128, 10, 2};
  options.number("--batch-size", &command->what.batch_size, "prompts at once");
  declare_shared(options, &command->what.engine, &command->what.shape, command.get(),
                 "batches that count; each has fresh prompts", "untimed batches first");
  return [command] { return run(*command); };
}

// --- scaling

struct ScalingCommand : FleetBenchOptions {
  ScalingOptions what;
  std::string sizes = "1,2";
};

Result<std::vector<int>> parse_sizes(const std::string& text) {
  std::vector<int> sizes;
  for (const std::string_view part : split(text, ',')) {
    const auto size = number_in<int>(part);
    if (!size || *size < 1 || std::ranges::find(sizes, *size) != sizes.end()) {
      return fail(ErrorCode::invalid_argument,
                  "--data-parallel-sizes {}: give different whole numbers from 1, as in 1,2,4", text);
    }
    sizes.push_back(*size);
  }
  return sizes;
}

Result<int> run(ScalingCommand& command) {
  CHORUS_TRY(command.what.sizes, parse_sizes(command.sizes));
  CHORUS_TRY(const BenchModel model, prepare_model(command.what.engine, command.what.shape, command));
  return report(command, [&](const BenchHooks& hooks) { return measure_scaling(command.what, model, hooks); });
}

std::function<Result<int>()> declare_bench_scaling(Options& options) {
  auto command = std::make_shared<ScalingCommand>();
  command->what.shape = {128, 128, 3, 1};
  options.text("--data-parallel-sizes", &command->sizes,
               "as in 1,2,4; efficiency is against the smallest (default 1,2)");
  options.number("--num-prompts", &command->what.num_prompts, "random prompts, the same at each size");
  declare_shared(options, &command->what.engine, &command->what.shape, command.get(),
                 "runs at each size, in turn; the median counts", "untimed prompts on each replica first");
  return [command] { return run(*command); };
}

// --- kernels

struct KernelCommand : BenchOptions {
  KernelOptions what;
};

Result<int> run(const KernelCommand& command) {
  CHORUS_TRY(const ModelConfig model, read_model(command.what.engine));
  return report(command, [&](const BenchHooks& hooks) { return measure_kernels(command.what, model, hooks); });
}

std::function<Result<int>()> declare_bench_kernels(Options& options) {
  auto command = std::make_shared<KernelCommand>();
  options.positional(
      "MODEL", &command->what.engine.model,
      "Hugging Face model directory or .gguf file; with --load-format dummy config.json alone is enough");
  options.number("--num-iters", &command->what.num_iters, "measurements of each product; the median counts");
  options.text("--output-json", &command->output_json, "where the result goes as one JSON object");
  options.engine(&command->what.engine);
  return [command] { return run(*command); };
}

}  // namespace

std::vector<Command> bench_commands() {
  return {
      {"throughput", "all prompts at once: requests and tokens per second", declare_bench_throughput},
      {"latency", "one batch at a time: prefill time, time per output token", declare_bench_latency},
      {"scaling", "the same work at several data-parallel sizes, with efficiency", declare_bench_scaling},
      {"kernels", "the products of a layer against the machine's limits", declare_bench_kernels},
      {"serve", "the load of many clients on a server: latencies and throughput as they see them", declare_bench_serve},
  };
}

}  // namespace chorus

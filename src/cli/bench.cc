#include "cli/bench.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/check.h"
#include "base/clock.h"
#include "base/philox.h"
#include "cli/read_model.h"
#include "frontend/prompt_line.h"

namespace chorus {
namespace {

constexpr int warm_up_output_len = 4;
constexpr std::uint64_t warm_up_round = 1U << 31;  // no measured round has this number

// Pss of a process in bytes; 0 if it is gone.
std::uint64_t pss_bytes(int pid) {
  std::ifstream file(fmt::format("/proc/{}/smaps_rollup", pid));
  for (std::string line; std::getline(file, line);) {
    if (line.rfind("Pss:", 0) == 0) return std::strtoull(line.c_str() + 4, nullptr, 10) * 1024;
  }
  return 0;
}

}  // namespace

void declare_bench_options(Options& options, BenchOptions* values, const char* num_iters_help,
                           const char* warmup_help) {
  options.positional("MODEL", &values->engine.model,
                     "Hugging Face model directory; with --load-format dummy config.json alone is enough");
  options.number("--input-len", &values->input_len, "tokens of each random prompt");
  options.number("--output-len", &values->output_len, "tokens generated for each prompt, whatever the model says");
  options.number("--num-iters", &values->num_iters, num_iters_help);
  options.number("--warmup", &values->warmup, warmup_help);
  options.text("--output-json", &values->output_json, "where the result goes as one JSON object");
  options.flag("--disable-progress-bars", &values->disable_progress_bars, "no progress on stderr");
  options.engine(&values->engine);
  options.sampling(&values->sampling);
}

Result<void> check_at_least(const char* option, int value, int least) {
  if (value >= least) return {};
  return fail(ErrorCode::invalid_argument, "{} is {}: give at least {}", option, value, least);
}

Result<BenchModel> prepare_bench_model(const BenchOptions& options) {
  CHORUS_TRY_VOID(check_at_least("--num-iters", options.num_iters, 1));
  CHORUS_TRY_VOID(check_at_least("--warmup", options.warmup, 0));
  BenchModel model;
  CHORUS_TRY(ModelConfig config, read_model(options.engine));
  CHORUS_TRY(TextModel text, with_tokenizer(std::move(config)));
  model.config = std::move(text.config);
  model.tokenizer = std::move(text.tokenizer);
  model.defaults = default_generation_options(model.config, options.engine.generation_config != "chorus");
  CHORUS_TRY_VOID(apply_given(options.sampling, &model.defaults));
  return model;
}

Result<void> check_lengths(const BenchOptions& options, const ModelConfig& model) {
  CHORUS_TRY_VOID(check_at_least("--input-len", options.input_len, 1));
  CHORUS_TRY_VOID(check_at_least("--output-len", options.output_len, 1));
  const int limit = options.engine.max_model_len > 0 ? options.engine.max_model_len : model.max_position_embeddings;
  if (options.output_len >= limit || options.input_len > limit - options.output_len) {
    return fail(ErrorCode::invalid_argument,
                "--input-len {} and --output-len {} make more than max_model_len {}: give smaller ones",
                options.input_len, options.output_len, limit);
  }
  return {};
}

std::vector<GenerationInput> random_inputs(const BenchOptions& options, const BenchModel& model, int count,
                                           std::uint64_t round) {
  std::vector<GenerationInput> inputs(static_cast<std::size_t>(count));
  for (std::size_t index = 0; index < inputs.size(); ++index) {
    GenerationInput& input = inputs[index];
    std::vector<TokenId> ids(static_cast<std::size_t>(options.input_len));
    for (std::size_t position = 0; position < ids.size(); ++position) {
      const double uniform =
          philox_uniform(options.engine.seed, static_cast<std::uint32_t>(index), round << 32 | position);
      ids[position] = static_cast<TokenId>(uniform * model.config.vocab_size);
    }
    input.prompt_token_ids = std::move(ids);
    input.options = model.defaults;
    input.options.params.max_tokens = static_cast<std::uint32_t>(options.output_len);
    input.options.params.ignore_eos = true;
  }
  return inputs;
}

Result<void> warm_up(const BenchOptions& options, const BenchModel& model, const EngineConfig& engine, Fleet& fleet) {
  const int replicas = engine.parallel.data_parallel_size;
  if (options.warmup == 0) return {};
  std::vector<GenerationInput> inputs = random_inputs(options, model, options.warmup * replicas, warm_up_round);
  for (std::size_t index = 0; index < inputs.size(); ++index) {
    inputs[index].dp_rank = static_cast<int>(index) % replicas;
    inputs[index].options.params.max_tokens =
        static_cast<std::uint32_t>(std::min(options.output_len, warm_up_output_len));
  }
  ProgressLine silent("warm-up", true);
  CHORUS_TRY_VOID(run_workload(model, engine, fleet, inputs, silent));
  return {};
}

Result<BenchRun> run_workload(const BenchModel& model, const EngineConfig& engine, Fleet& fleet,
                              const std::vector<GenerationInput>& inputs, ProgressLine& progress) {
  BenchRun run;
  TextGenerator::Callbacks callbacks;
  callbacks.on_finished = [&run](std::size_t, GenerationOutput&& output) {
    if (output.error) {
      if (run.failed++ == 0) run.first_error = *output.error;
      return;
    }
    ++run.requests;
    run.prompt_tokens += output.prompt_token_ids.size();
    for (const GeneratedChoice& choice : output.choices) run.output_tokens += choice.token_ids.size();
  };
  callbacks.on_progress = [&progress](const GenerationProgress& now) { progress.update(now); };
  callbacks.interrupted = [] { return interrupted(); };
  TextGenerator generator(fleet, model.tokenizer, engine, model.config);
  const Nanoseconds started = monotonic_now();
  const auto generated = generator.generate(inputs, callbacks);
  run.elapsed_s = static_cast<double>(monotonic_now() - started) * 1e-9;
  progress.finish();
  CHORUS_TRY_VOID(generated);
  return run;
}

std::uint64_t fleet_rss_bytes(const Fleet& fleet) {
  std::uint64_t bytes = pss_bytes(::getpid());
  for (const ReplicaStatus& replica : fleet.replicas()) {
    if (replica.alive) bytes += pss_bytes(replica.pid);
  }
  return bytes;
}

BenchRun median_run(std::vector<BenchRun> runs) {
  CHECK(!runs.empty(), "{} runs", runs.size());
  std::sort(runs.begin(), runs.end(), [](const BenchRun& a, const BenchRun& b) { return a.elapsed_s < b.elapsed_s; });
  return runs[(runs.size() - 1) / 2];
}

double median(std::vector<double> values) {
  return percentile(std::move(values), 50);
}

double percentile(std::vector<double> values, double percent) {
  CHECK(!values.empty() && percent >= 0 && percent <= 100, "percentile {} of {} values", percent, values.size());
  std::sort(values.begin(), values.end());
  const double at = percent / 100 * static_cast<double>(values.size() - 1);
  const auto below = static_cast<std::size_t>(std::floor(at));
  const std::size_t above = std::min(below + 1, values.size() - 1);
  return values[below] + (at - static_cast<double>(below)) * (values[above] - values[below]);
}

Result<BenchJson> BenchJson::open(const std::string& path) {
  BenchJson json;
  if (path.empty()) return json;
  CHORUS_TRY(OutputFile file, OutputFile::open(path));
  json.file_.emplace(std::move(file));
  return json;
}

Result<void> BenchJson::write(const Json& result) {
  if (!file_) return {};
  std::string text = result.dump(2);
  text += '\n';
  CHORUS_TRY_VOID(file_->write(text));
  return file_->commit();
}

std::string table_row(const std::string& name, const std::string& value) {
  return fmt::format("  {:<28} {}\n", name, value);
}

}  // namespace chorus

// What the subcommands of bench share: random prompts, one measured run of a fleet, memory, summaries, the JSON file.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "cli/options.h"
#include "cli/output_file.h"
#include "cli/progress.h"
#include "frontend/text_generator.h"
#include "json/json.h"

namespace chorus {

// What every subcommand of bench takes.
struct BenchOptions {
  EngineConfig engine;
  int input_len = 0, output_len = 0;  // tokens
  int num_iters = 0, warmup = 0;
  std::string output_json;
  bool disable_progress_bars = false;
  std::vector<Options::GivenOption> sampling;
};
void declare_bench_options(Options& options, BenchOptions* values, const char* num_iters_help, const char* warmup_help);

// A model that is ready to be measured: configuration read and checked, tokenizer (null if there is none).
struct BenchModel {
  ModelConfig config;
  std::shared_ptr<const Tokenizer> tokenizer;
  GenerationOptions defaults;  // with the sampling options applied
};
Result<BenchModel> prepare_bench_model(const BenchOptions& options);

// At least `least`, else an error that names the option.
Result<void> check_at_least(const char* option, int value, int least);
// An input and an output of these lengths must fit into the model's longest sequence.
Result<void> check_lengths(const BenchOptions& options, const ModelConfig& model);

// `count` prompts of random token ids within the vocabulary, which depend on (seed, round, index) alone, so that rounds
// share no prefix that a cache could know; each asks for exactly output_len tokens.
std::vector<GenerationInput> random_inputs(const BenchOptions& options, const BenchModel& model, int count,
                                           std::uint64_t round);

// Runs `warmup` short prompts on each replica, before anything is timed.
Result<void> warm_up(const BenchOptions& options, const BenchModel& model, const EngineConfig& engine, Fleet& fleet);

// One workload through one fleet.
struct BenchRun {
  double elapsed_s = 0;  // first submission until the last output
  std::uint64_t requests = 0, prompt_tokens = 0, output_tokens = 0;
  std::uint64_t failed = 0;
  std::string first_error;
  double requests_per_second() const { return static_cast<double>(requests) / elapsed_s; }
  double output_tokens_per_second() const { return static_cast<double>(output_tokens) / elapsed_s; }
  double total_tokens_per_second() const { return static_cast<double>(prompt_tokens + output_tokens) / elapsed_s; }
};
Result<BenchRun> run_workload(const BenchModel& model, const EngineConfig& engine, Fleet& fleet,
                              const std::vector<GenerationInput>& inputs, ProgressLine& progress);

// Bytes of memory of this process and the fleet's engines: the sum of Pss (/proc/PID/smaps_rollup), in which a page
// that P processes share counts 1/P in each, so that the shared weights count once.
std::uint64_t fleet_rss_bytes(const Fleet& fleet);

// The run in the middle by elapsed time (the faster of two).
BenchRun median_run(std::vector<BenchRun> runs);
double median(std::vector<double> values);
// The value below which `percent` of the values lie, interpolated linearly between neighbours (as numpy.percentile).
double percentile(std::vector<double> values, double percent);

// Where the result goes: opened before anything is measured, so that a wrong name does not cost a run. `path` empty:
// nowhere.
class BenchJson {
 public:
  static Result<BenchJson> open(const std::string& path);
  Result<void> write(const Json& result);

 private:
  std::optional<OutputFile> file_;
};

// "  name    value" with the names in one column.
std::string table_row(const std::string& name, const std::string& value);

}  // namespace chorus

// What every benchmark does: prompts, one timed run of them through a fleet, the memory that it takes.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "bench/plot.h"
#include "config/engine_config.h"
#include "config/model_config.h"
#include "fleet/fleet.h"
#include "frontend/offline.h"
#include "frontend/sampling_options.h"
#include "json/json.h"
#include "tokenizer/tokenizer.h"

namespace chorus {

// A model that is ready to be measured: configuration read and checked, tokenizer (null if there is none).
struct BenchModel {
  ModelConfig config;
  std::shared_ptr<const Tokenizer> tokenizer;
  GenerationOptions defaults;  // of the prompts, as the user gave them
};

// The shape of what is measured.
struct BenchShape {
  int input_len = 0, output_len = 0;  // tokens
  int num_iters = 0, warmup = 0;
};

// How the command follows it.
struct BenchHooks {
  std::function<bool()> interrupted;
  // Once a run: `what` is measured, over `total` rows. What it gives is told how far the run is.
  std::function<std::function<void(const GenerationProgress& progress)>(const std::string& what, std::size_t total)>
      begin_progress;
};

// At least `least`, else an error that names the option.
Result<void> check_at_least(const char* option, int value, int least);
// Within [least, most], else such an error.
Result<void> check_between(const char* option, int value, int least, int most);
// An input and an output of these lengths must fit into the model's longest sequence.
Result<void> check_lengths(const BenchShape& shape, const EngineConfig& engine, const ModelConfig& model);

// `count` prompts of random token ids within the vocabulary, which depend on (seed, round, index) alone, so that rounds
// share no prefix that a cache could know; each asks for exactly output_len tokens.
std::vector<GenerationInput> random_inputs(const BenchShape& shape, const BenchModel& model, std::uint64_t seed,
                                           int count, std::uint64_t round);

// A fleet that is to be measured, and what drives it.
class BenchFleet {
 public:
  static Result<std::unique_ptr<BenchFleet>> start(const EngineConfig& config, const BenchModel& model,
                                                   const BenchHooks& hooks);
  Fleet& fleet() { return *fleet_; }
  TextEngine& engine() { return engine_; }
  const EngineConfig& config() const { return config_; }

 private:
  BenchFleet(const EngineConfig& config, const BenchModel& model, std::unique_ptr<Fleet> fleet);

  EngineConfig config_;
  std::unique_ptr<Fleet> fleet_;
  TextEngine engine_;
};

// Runs `shape.warmup` short prompts on each replica, before anything is timed.
Result<void> warm_up(const BenchShape& shape, const BenchModel& model, BenchFleet& fleet, const BenchHooks& hooks);

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
Result<BenchRun> run_workload(BenchFleet& fleet, const std::vector<GenerationInput>& inputs, const std::string& what,
                              const BenchHooks& hooks);

// The run in the middle by elapsed time (the faster of two).
BenchRun median_run(std::vector<BenchRun> runs);

// Bytes of memory of this process and the fleet's engines: the sum of Pss (/proc/PID/smaps_rollup), in which a page
// that P processes share counts 1/P in each, so that the shared weights count once.
std::uint64_t fleet_rss_bytes(const Fleet& fleet);

// What a benchmark has found: for programs, and for people.
struct BenchResult {
  Json json;
  std::string table;
  std::uint64_t failed = 0;  // requests
  std::string first_error;
  Plot plot = {};  // without panels: there is none
};

// "  name    value" with the names in one column.
std::string table_row(const std::string& name, const std::string& value);

}  // namespace chorus

#include "bench/workload.h"

#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/check.h"
#include "base/clock.h"
#include "base/philox.h"
#include "launch/launch_fleet.h"

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

Result<void> check_at_least(const char* option, int value, int least) {
  if (value >= least) return {};
  return fail(ErrorCode::invalid_argument, "{} is {}: give at least {}", option, value, least);
}

Result<void> check_between(const char* option, int value, int least, int most) {
  if (value >= least && value <= most) return {};
  return fail(ErrorCode::invalid_argument, "{} is {}: give {} to {}", option, value, least, most);
}

Result<void> check_lengths(const BenchShape& shape, const EngineConfig& engine, const ModelConfig& model) {
  CHORUS_TRY_VOID(check_at_least("--input-len", shape.input_len, 1));
  CHORUS_TRY_VOID(check_at_least("--output-len", shape.output_len, 1));
  const int limit = engine.max_model_len > 0 ? engine.max_model_len : model.max_position_embeddings;
  if (shape.output_len >= limit || shape.input_len > limit - shape.output_len) {
    return fail(ErrorCode::invalid_argument,
                "--input-len {} and --output-len {} make more than max_model_len {}: give smaller ones",
                shape.input_len, shape.output_len, limit);
  }
  return {};
}

std::vector<GenerationInput> random_inputs(const BenchShape& shape, const BenchModel& model, std::uint64_t seed,
                                           int count, std::uint64_t round) {
  std::vector<GenerationInput> inputs(static_cast<std::size_t>(count));
  for (std::size_t index = 0; index < inputs.size(); ++index) {
    GenerationInput& input = inputs[index];
    std::vector<TokenId> ids(static_cast<std::size_t>(shape.input_len));
    for (std::size_t position = 0; position < ids.size(); ++position) {
      const double uniform = philox_uniform(seed, static_cast<std::uint32_t>(index), round << 32 | position);
      ids[position] = static_cast<TokenId>(uniform * model.config.vocab_size);
    }
    input.prompt_token_ids = std::move(ids);
    input.options = model.defaults;
    input.options.params.max_tokens = static_cast<std::uint32_t>(shape.output_len);
    input.options.params.ignore_eos = true;
  }
  return inputs;
}

BenchFleet::BenchFleet(const EngineConfig& config, const BenchModel& model, std::unique_ptr<Fleet> fleet)
    : config_(config),
      fleet_(std::move(fleet)),
      engine_(*fleet_, model.tokenizer, config, model.config,
              [seed = config.seed](std::span<const TokenId> prompt, const SamplingParams&) {
                return seed_for(seed, prompt);
              }) {}

Result<std::unique_ptr<BenchFleet>> BenchFleet::start(const EngineConfig& config, const BenchModel& model,
                                                      const BenchHooks& hooks) {
  CHORUS_TRY(auto fleet, launch_fleet(config, model.config, hooks.interrupted));
  return std::unique_ptr<BenchFleet>(new BenchFleet(config, model, std::move(fleet)));
}

Result<void> warm_up(const BenchShape& shape, const BenchModel& model, BenchFleet& fleet, const BenchHooks& hooks) {
  const int replicas = fleet.config().parallel.data_parallel_size;
  if (shape.warmup == 0) return {};
  std::vector<GenerationInput> inputs =
      random_inputs(shape, model, fleet.config().seed, shape.warmup * replicas, warm_up_round);
  for (std::size_t index = 0; index < inputs.size(); ++index) {
    inputs[index].dp_rank = static_cast<int>(index) % replicas;
    inputs[index].options.params.max_tokens =
        static_cast<std::uint32_t>(std::min(shape.output_len, warm_up_output_len));
  }
  CHORUS_TRY_VOID(run_workload(fleet, inputs, "warm-up", BenchHooks{hooks.interrupted, {}}));
  return {};
}

Result<BenchRun> run_workload(BenchFleet& fleet, const std::vector<GenerationInput>& inputs, const std::string& what,
                              const BenchHooks& hooks) {
  BenchRun run;
  std::vector<OfflineRow> rows = deal(inputs, fleet.config());
  OfflineWork work;
  work.next = rows_of(&rows);
  work.on_finished = [&run](std::size_t, GenerationOutput&& output) -> Result<void> {
    if (output.error) {
      if (run.failed++ == 0) run.first_error = *output.error;
      return {};
    }
    ++run.requests;
    run.prompt_tokens += output.prompt_tokens;
    for (const GeneratedChoice& choice : output.choices) run.output_tokens += choice.token_ids.size();
    return {};
  };
  if (hooks.begin_progress) work.on_progress = hooks.begin_progress(what, inputs.size());
  work.interrupted = hooks.interrupted;
  const Nanoseconds started = monotonic_now();
  CHORUS_TRY_VOID(run_offline(fleet.engine(), work));
  run.elapsed_s = static_cast<double>(monotonic_now() - started) * 1e-9;
  return run;
}

BenchRun median_run(std::vector<BenchRun> runs) {
  CHECK(!runs.empty(), "{} runs", runs.size());
  std::sort(runs.begin(), runs.end(), [](const BenchRun& a, const BenchRun& b) { return a.elapsed_s < b.elapsed_s; });
  return runs[(runs.size() - 1) / 2];
}

std::uint64_t fleet_rss_bytes(const Fleet& fleet) {
  std::uint64_t bytes = pss_bytes(::getpid());
  for (const ReplicaStatus& replica : fleet.replicas()) {
    if (replica.alive) bytes += pss_bytes(replica.pid);
  }
  return bytes;
}

std::string table_row(const std::string& name, const std::string& value) {
  return fmt::format("  {:<28} {}\n", name, value);
}

}  // namespace chorus

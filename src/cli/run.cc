// chorus run WORKFLOW.json: the JSON workflow on real fleets, one a text_prompt node.
#include <fmt/format.h>

#include <cstdio>
#include <nlohmann/json.hpp>

#include "base/log.h"
#include "cli/commands.h"
#include "cli/progress.h"
#include "cli/version.h"
#include "exec/kv_capacity.h"
#include "exec/load_weights.h"
#include "frontend/chat_format.h"
#include "frontend/offline.h"
#include "frontend/prompt_line.h"
#include "frontend/read_model.h"
#include "frontend/text_engine.h"
#include "launch/launch_fleet.h"
#include "launch/ray_replicas.h"
#include "models/registry.h"
#include "workflow/workflow.h"

namespace chorus {
namespace {

// What a node did, for the closing table.
struct NodeTotals {
  std::string name;
  Nanoseconds elapsed = 0;  // generating
  struct Replica {
    std::size_t rows = 0;
    std::uint64_t tokens = 0;
  };
  std::vector<Replica> replicas;
};

// Generates a node's rows on a fleet that lives as long as the node runs.
class FleetGenerator final : public BatchGenerator {
 public:
  static Result<std::unique_ptr<BatchGenerator>> start(const TextPromptParams& node, bool quiet,
                                                       std::vector<NodeTotals>* totals) {
    std::unique_ptr<FleetGenerator> generator(new FleetGenerator(totals, quiet || node.disable_progress_bars));
    CHORUS_TRY_VOID(generator->load(node));
    return std::unique_ptr<BatchGenerator>(std::move(generator));
  }

  int rank_count() const override { return engine_.parallel.data_parallel_size; }

  Result<void> generate_batch(std::span<const PromptRow> rows, std::optional<Nanoseconds> deadline,
                              const OnRow& on_row) override {
    std::vector<GenerationInput> inputs;
    for (const PromptRow& row : rows) {
      CHORUS_TRY(GenerationInput input, input_of(row));
      inputs.push_back(std::move(input));
    }
    ProgressLine progress("run", quiet_, rows.size());
    std::vector<OfflineRow> dealt = deal(std::move(inputs), engine_);
    OfflineWork work;
    work.next = rows_of(&dealt);
    work.on_finished = [&](std::size_t index, GenerationOutput&& output) -> Result<void> {
      std::optional<RowResult> result = take(std::move(output));
      return result ? on_row(index, std::move(*result)) : Result<void>();
    };
    work.on_progress = [&](const GenerationProgress& now) { progress.update(now); };
    work.interrupted = interrupted;
    work.deadline = deadline;
    work.deadline_message = late_;
    const Nanoseconds started = monotonic_now();
    const auto generated = run_offline(*text_, work);
    NodeTotals& totals = (*totals_)[at_];
    totals.elapsed += monotonic_now() - started;
    return generated;
  }

 private:
  FleetGenerator(std::vector<NodeTotals>* totals, bool quiet) : totals_(totals), at_(totals->size()), quiet_(quiet) {}

  Result<void> load(const TextPromptParams& node) {
    engine_ = node.engine;
    read_ray_environment(environment_variable, &engine_);
    CHORUS_TRY(ModelConfig config, read_model(engine_));
    CHORUS_TRY(TextModel text, with_tokenizer(std::move(config)));
    model_ = std::move(text.config);
    CHORUS_TRY(const Json options, parse_json(node.generation_options));
    options_ = default_generation_options(model_, engine_.generation_config != "chorus");
    for (const auto& [name, value] : options.items()) CHORUS_TRY_VOID(apply_sampling_option(&options_, name, value));
    CHORUS_TRY(chat_, ChatFormat::load(engine_.model));
    CHORUS_TRY_VOID(start_fleet());
    text_ = std::make_unique<TextEngine>(*fleet_, std::move(text.tokenizer), engine_, model_,
                                         seed_by_prompt(engine_.seed), offline_limits(engine_));
    totals_->push_back({node.name, 0, std::vector<NodeTotals::Replica>(static_cast<std::size_t>(rank_count()))});
    return {};
  }

  // If the ranks cannot start, one worker does the work, and the log says why (interface.md).
  Result<void> start_fleet() {
    EngineConfig given = engine_;
    auto fleet = start_fitted(given);
    if (!fleet.ok() && rank_count() > 1 && !interrupted() && fleet.error().code != ErrorCode::invalid_argument &&
        fleet.error().code != ErrorCode::not_found) {
      log(LogLevel::warning, "{} data parallel workers could not start ({}): going on with one", rank_count(),
          fleet.error().message);
      given.parallel.data_parallel_size = 1;
      given.parallel.data_parallel_size_local = 0;
      given.parallel.nodes_per_replica = 1;
      given.data_parallel_backend = given.distributed_executor_backend = "mp";  // a worker of this machine
      fleet = start_fitted(given);
    }
    if (!fleet.ok()) return fleet.error();
    fleet_ = std::move(fleet).value();
    return {};
  }

  Result<std::unique_ptr<Fleet>> start_fitted(const EngineConfig& given) {
    CHORUS_TRY(engine_, fit_to_kv_memory(given, model_, detect_node()));
    return launch_fleet(engine_, model_, interrupted);
  }

  Result<GenerationInput> input_of(const PromptRow& row) const {
    GenerationInput input;
    input.options = options_;
    input.dp_rank = row.dp_rank;
    input.prompt = row.prompt;
    if (row.messages.empty()) return input;
    CHORUS_TRY(const Json messages, parse_json(row.messages));
    auto rendered = chat_.render({{"messages", messages}, {"now", row.now_unix_s}});
    if (!rendered.ok()) {
      input.error = rendered.error().message;
    } else {
      input.prompt = std::move(*rendered);
      input.add_special_tokens = false;
    }
    return input;
  }

  // nullopt: not done by the deadline.
  std::optional<RowResult> take(GenerationOutput&& output) {
    if (output.error == late_) return std::nullopt;
    RowResult result;
    result.error = std::move(output.error);
    result.prompt_tokens = output.prompt_tokens;
    result.dp_rank = output.dp_rank;
    for (const GeneratedChoice& choice : output.choices) result.completion_tokens += choice.token_ids.size();
    if (!output.choices.empty()) {
      result.text = std::move(output.choices.front().text);
      result.finish_reason = name_of(output.choices.front().finish_reason);
    }
    auto& replicas = (*totals_)[at_].replicas;
    if (result.dp_rank >= 0 && static_cast<std::size_t>(result.dp_rank) < replicas.size()) {
      auto& replica = replicas[static_cast<std::size_t>(result.dp_rank)];
      ++replica.rows;
      replica.tokens += result.completion_tokens;
    }
    return result;
  }

  std::vector<NodeTotals>* totals_;
  std::size_t at_;  // of this node in *totals_
  bool quiet_;
  const std::string late_ = "not done by the deadline";
  EngineConfig engine_;
  ModelConfig model_;
  GenerationOptions options_;
  ChatFormat chat_;
  std::unique_ptr<Fleet> fleet_;
  std::unique_ptr<TextEngine> text_;  // after the fleet that it drives
};

void print_table(const WorkflowReport& report, const std::vector<NodeTotals>& totals) {
  fmt::print("\n{:<20} {:>8} {:>8} {:>8} {:>10} {:>12}\n", "node", "rows", "failed", "resumed", "tokens", "tokens/s");
  for (const NodeReport& node : report.nodes) {
    const NodeTotals* of_node = nullptr;
    for (const NodeTotals& candidate : totals) {
      if (node.output_path.ends_with("/" + candidate.name + ".jsonl")) of_node = &candidate;
    }
    std::uint64_t tokens = 0;
    const double seconds = of_node != nullptr ? static_cast<double>(of_node->elapsed) * 1e-9 : 0;
    if (of_node != nullptr) {
      for (const auto& replica : of_node->replicas) tokens += replica.tokens;
    }
    const auto rate = [seconds](std::uint64_t count) {
      return seconds > 0 ? static_cast<double>(count) / seconds : 0.0;
    };
    fmt::print("{:<20} {:>8} {:>8} {:>8} {:>10} {:>12.0f}\n", node.id, node.rows, node.failed, node.resumed, tokens,
               rate(tokens));
    if (of_node == nullptr) continue;
    for (std::size_t rank = 0; rank < of_node->replicas.size(); ++rank) {
      const auto& replica = of_node->replicas[rank];
      fmt::print("{:<20} {:>8} {:>8} {:>8} {:>10} {:>12.0f}\n", fmt::format("  replica {}", rank), replica.rows, "", "",
                 replica.tokens, rate(replica.tokens));
    }
  }
  std::fflush(stdout);
}

// Outputs of another release, instruction set or dtype may differ in their bits: one file does not mix them.
Result<std::string> profile_of(const TextPromptParams& node) {
  CHORUS_TRY(const ModelConfig model, read_model_config(node.engine.model, node.engine.generation_config));
  CHORUS_TRY(const Isa isa, choose_isa(node.engine.device, node.engine.cpu_isa));
  return version() + " " + numerics_profile(isa, node.engine, model);
}

Result<int> run(const std::string& path, bool disable_progress_bars) {
  CHORUS_TRY(const Workflow workflow, parse_workflow(path));
  std::vector<NodeTotals> totals;
  WorkflowHooks hooks;
  hooks.interrupted = [] { return interrupted(); };
  hooks.profile = profile_of;
  const auto factory = [&](const TextPromptParams& node) {
    return FleetGenerator::start(node, disable_progress_bars, &totals);
  };
  CHORUS_TRY(const WorkflowReport report, run_workflow(workflow, factory, hooks));
  print_table(report, totals);
  return report.failed() > 0 ? exit_rows_failed : exit_done;
}

}  // namespace

std::function<Result<int>()> declare_run(Options& options) {
  struct RunOptions {
    std::string path;
    bool disable_progress_bars = false;
  };
  auto values = std::make_shared<RunOptions>();
  options.positional("WORKFLOW", &values->path, "workflow file (JSON)");
  options.flag("--disable-progress-bars", &values->disable_progress_bars, "no progress on stderr");
  return [values] { return run(values->path, values->disable_progress_bars); };
}

}  // namespace chorus

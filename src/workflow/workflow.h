// JSON workflows (interface.md, "Workflow JSON"): load records, generate text for each by a prompt template, write one
// line a record. This room plans, renders, splits, journals and writes; generating is behind the BatchGenerator seam.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "config/engine_config.h"

namespace chorus {

// --- The workflow as parsed: a plain value. All paths are absolute. ---

struct LoadParams {
  std::string input_data_path;  // .jsonl, .json (an array) or .csv, inside data_dir
  std::string primary_key;
};

struct TextPromptParams {
  std::string name;     // of the prompt template and of the output file
  EngineConfig engine;  // model and parallel sizes included
  std::string dp_master_ip = "127.0.0.1";
  std::optional<int> dp_master_port;  // nullopt: chosen
  bool disable_progress_bars = false;
  std::size_t batch_size = 256;           // rows
  double batch_timeout_s = 0;             // 0: none
  std::string generation_options = "{}";  // JSON object, each entry checked by apply_sampling_option
};

struct WorkflowNode {
  std::string id;
  std::variant<LoadParams, TextPromptParams> params;
  std::vector<std::string> dependencies;
};

struct Workflow {
  std::string path;  // the file
  std::string name;
  std::string data_dir;
  std::string prompts_dir;
  std::string output_dir;
  std::vector<WorkflowNode> nodes;  // each after those that it depends on
};

// Reads and checks the file; touches nothing else but to resolve links. Errors (exit status 2) say which node and key:
// unknown keys, types and options with the nearest known name, duplicate ids, unknown dependencies, cycles, and paths
// that leave data_dir, prompts_dir or output_dir.
Result<Workflow> parse_workflow(const std::string& path);

// --- The seam: who generates. ---

struct PromptRow {
  std::size_t row = 0;   // index of the record
  std::string prompt;    // the rendered template; empty when there are messages
  std::string messages;  // JSON: [{"role", "content"}, ..] for the model's chat template; empty when there is a prompt
  int dp_rank = 0;       // where the even split puts it; a generator may move it when that rank is gone
  std::int64_t now_unix_s = 0;  // what strftime_now of the chat template sees: the same in a run that goes on
};

struct RowResult {
  std::string text;           // of choice 0
  std::string finish_reason;  // "stop", "length"
  std::uint64_t prompt_tokens = 0;
  std::uint64_t completion_tokens = 0;
  std::optional<std::string> error;  // of this row alone
  int dp_rank = 0;                   // who answered
};

class BatchGenerator {
 public:
  virtual ~BatchGenerator() = default;
  virtual int rank_count() const = 0;
  // Takes rows[index]'s result for good. An error (a full disk) ends the batch with it.
  using OnRow = std::function<Result<void>(std::size_t index, RowResult&& result)>;
  // Calls `on_row` once for each row as soon as it is done, in any order, on the caller's thread; not for rows that are
  // not done by `deadline` (monotonic; nullopt: none). An error: nothing can be generated any more (or cancelled); rows
  // that were handed over by then count.
  virtual Result<void> generate_batch(std::span<const PromptRow> rows, std::optional<Nanoseconds> deadline,
                                      const OnRow& on_row) = 0;
};
// Starts what a node needs. Called only when the node has rows left to do.
using BatchGeneratorFactory = std::function<Result<std::unique_ptr<BatchGenerator>>(const TextPromptParams& node)>;

// --- Running. ---

struct NodeReport {
  std::string id;
  std::string output_path;
  std::size_t rows = 0;
  std::size_t succeeded = 0;
  std::size_t failed = 0;
  std::size_t resumed = 0;  // of the succeeded: taken from a run that was cut off
};

struct WorkflowReport {
  std::vector<NodeReport> nodes;  // of the text_prompt nodes
  std::size_t failed() const;     // rows, of all nodes: exit status 3 if there are any
};

struct WorkflowHooks {
  std::function<void(const TextPromptParams& node, std::size_t done, std::size_t total)> on_progress;  // may be empty
  std::function<bool()> interrupted;  // may be empty; true ends the run between batches with ErrorCode::cancelled
  std::function<std::int64_t()> now_unix_s;  // may be empty: the system's clock
  // What the bits of a node's outputs depend on beside its inputs (dtype, instruction set, release). A run that was cut
  // off under another profile is not gone on with. May be empty.
  std::function<Result<std::string>(const TextPromptParams& node)> profile;
};

// Loads all data and reads all templates before anything is generated. output_dir is made if it is not there; per node
// it gets NAME.jsonl, complete or not at all, and at the end report.json. Each row is in
// output_dir/.NAME.progress.jsonl as soon as it is done (so a killed process loses none), and synced before the next
// batch begins and about every second (so a lost machine loses little). A later run of the same workflow on the same
// inputs, under the same profile, goes on from there with the first run's time of day; rows that failed are tried
// again. Two runs at once in one output_dir: the second is refused.
Result<WorkflowReport> run_workflow(const Workflow& workflow, const BatchGeneratorFactory& factory,
                                    const WorkflowHooks& hooks = {});

}  // namespace chorus

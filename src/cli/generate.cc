// chorus generate MODEL: prompts in, JSON lines out, in input order.
#include <fmt/format.h>
#include <unistd.h>

#include <iostream>
#include <map>
#include <nlohmann/json.hpp>

#include "base/log.h"
#include "cli/commands.h"
#include "cli/output_file.h"
#include "cli/progress.h"
#include "cli/prompt_rows.h"
#include "cli/read_model.h"
#include "cli/version.h"
#include "exec/kv_capacity.h"
#include "frontend/chat_format.h"
#include "frontend/offline.h"
#include "frontend/output_line.h"
#include "frontend/prompt_line.h"
#include "frontend/text_engine.h"
#include "launch/launch_fleet.h"
#include "launch/launched_world.h"
#include "parallel/launch/launcher.h"

namespace chorus {
namespace {

struct GenerateOptions {
  EngineConfig engine;
  std::vector<std::string> prompts;
  std::string input, output;
  bool metrics = false;
  bool disable_progress_bars = false;
  std::vector<Options::GivenOption> sampling;
};

// Where the rows come from; nothing: only --prompt was given.
std::string input_file(const GenerateOptions& options) {
  if (!options.input.empty() && options.input != "-") return options.input;
  return options.prompts.empty() || options.input == "-" ? "/dev/stdin" : "";
}

// The rows in input order: those of --prompt, then those of --input or stdin.
class RowReader {
 public:
  static Result<RowReader> open(const GenerateOptions& options, const ChatFormat& chat,
                                const GenerationOptions& defaults) {
    RowReader reader(options, defaults);
    const std::string path = !options.input.empty() ? options.input : options.prompts.empty() ? "-" : "";
    reader.total_ = options.prompts.size();
    if (path.empty()) return reader;
    CHORUS_TRY(const auto rows, check_prompt_file(path, defaults));
    reader.total_ = rows ? std::optional(*reader.total_ + *rows) : std::nullopt;
    CHORUS_TRY(PromptReader lines, PromptReader::open(path, &chat, defaults));
    reader.lines_.emplace(std::move(lines));
    return reader;
  }

  Result<std::optional<PromptLine>> next() {
    std::optional<PromptLine> row;
    if (rows_ < prompts_.size()) {
      row.emplace().input.prompt = prompts_[rows_];
      row->input.options = defaults_;
    } else if (lines_) {
      CHORUS_TRY(row, lines_->next());
    }
    if (!row) return row;
    if (row->id.is_null()) row->id = rows_;
    row->input.return_prompt = true;
    ++rows_;
    return row;
  }

  bool is_ready() { return rows_ < prompts_.size() || !lines_ || lines_->is_ready(); }
  std::size_t rows() const { return rows_; }                   // read so far
  std::optional<std::size_t> total() const { return total_; }  // nullopt: not known yet

 private:
  RowReader(const GenerateOptions& options, const GenerationOptions& defaults)
      : prompts_(options.prompts), defaults_(defaults) {}

  const std::vector<std::string>& prompts_;
  GenerationOptions defaults_;
  std::optional<PromptReader> lines_;
  std::size_t rows_ = 0;
  std::optional<std::size_t> total_;
};

// Holds results until every earlier one is written.
class OrderedWriter {
 public:
  OrderedWriter(OutputFile& file, bool metrics) : file_(file), metrics_(metrics) {}

  // Before the row runs.
  void expect(std::size_t index, Json id, const SamplingParams& params) {
    const OutputLineFields fields{params.logprobs.has_value(), params.prompt_logprobs.has_value(), metrics_};
    rows_.emplace(index, Row{std::move(id), fields, std::nullopt});
  }

  Result<void> take(std::size_t index, GenerationOutput&& output) {
    failed_ += output.error ? 1 : 0;
    rows_.at(index).output = std::move(output);
    for (auto first = rows_.begin(); first != rows_.end() && first->second.output; first = rows_.begin()) {
      line_.clear();
      append_output_line(first->second.id, *first->second.output, first->second.fields, &line_);
      CHORUS_TRY_VOID(file_.write(line_));
      rows_.erase(first);
    }
    return {};
  }

  std::size_t held() const { return rows_.size(); }  // expected and not written
  std::size_t failed() const { return failed_; }

 private:
  struct Row {
    Json id;
    OutputLineFields fields;
    std::optional<GenerationOutput> output;
  };
  OutputFile& file_;
  bool metrics_;
  std::map<std::size_t, Row> rows_;  // by index; the first is the next to be written
  std::size_t failed_ = 0;
  std::string line_;
};

// Who gets a row depends on all rows: they are in memory then.
bool needs_all_rows(AssignmentName assignment) {
  return assignment == AssignmentName::contiguous || assignment == AssignmentName::priority;
}

// From the rows to the output.
class Generation {
 public:
  Generation(const GenerateOptions& options, RowReader reader, OutputFile& file)
      : options_(options), reader_(std::move(reader)), writer_(file, options.metrics) {}

  Result<void> run(TextEngine& engine) {
    ProgressLine progress("generate", options_.disable_progress_bars, reader_.total());
    const bool all_rows = needs_all_rows(options_.engine.assignment);
    std::vector<OfflineRow> dealt;
    OfflineWork work;
    work.next = [this] { return next(); };
    work.may_read = [this] { return writer_.held() < rows_held_max && reader_.is_ready(); };
    if (all_rows) {
      CHORUS_TRY(dealt, read_all());
      work.next = rows_of(&dealt);
      work.may_read = {};
    }
    work.on_finished = [this](std::size_t index, GenerationOutput&& output) {
      return writer_.take(index, std::move(output));
    };
    work.on_progress = [&](const GenerationProgress& now) { progress.update(now); };
    work.interrupted = interrupted;
    return run_offline(engine, work);
  }

  std::size_t rows() const { return reader_.rows(); }
  std::size_t failed() const { return writer_.failed(); }

 private:
  // Rows that are in flight or wait for an earlier one to be written.
  static constexpr std::size_t rows_held_max = 16384;

  Result<std::optional<OfflineRow>> next() {
    const std::size_t index = reader_.rows();
    CHORUS_TRY(std::optional<PromptLine> line, reader_.next());
    if (!line) return std::optional<OfflineRow>();
    writer_.expect(index, std::move(line->id), line->input.options.params);
    OfflineRow row{index, std::move(line->input)};
    const auto ranks = static_cast<std::size_t>(options_.engine.parallel.data_parallel_size);
    if (options_.engine.assignment == AssignmentName::modulo) row.input.dp_rank = static_cast<int>(index % ranks);
    return std::optional<OfflineRow>(std::move(row));
  }

  Result<std::vector<OfflineRow>> read_all() {
    std::vector<GenerationInput> inputs;
    while (true) {
      CHORUS_TRY(std::optional<OfflineRow> row, next());
      if (!row) return deal(std::move(inputs), options_.engine);
      inputs.push_back(std::move(row->input));
    }
  }

  const GenerateOptions& options_;
  RowReader reader_;
  OrderedWriter writer_;
};

// From the prompts to the whole output, on the fleet that `start` gives.
using StartFleet = std::function<Result<std::unique_ptr<Fleet>>()>;
Result<int> generate_with(const GenerateOptions& options, const TextModel& model, const StartFleet& start) {
  CHORUS_TRY(const ChatFormat chat, ChatFormat::load(options.engine.model));
  GenerationOptions defaults = default_generation_options(model.config, options.engine.generation_config != "chorus");
  CHORUS_TRY_VOID(apply_given(options.sampling, &defaults));
  CHORUS_TRY(RowReader reader, RowReader::open(options, chat, defaults));
  CHORUS_TRY(OutputFile file, OutputFile::open(options.output, {input_file(options)}));
  CHORUS_TRY(const auto fleet, start());
  TextEngine engine(*fleet, model.tokenizer, options.engine, model.config, seed_by_prompt(options.engine.seed),
                    offline_limits(options.engine));
  Generation generation(options, std::move(reader), file);
  CHORUS_TRY_VOID(generation.run(engine));
  CHORUS_TRY_VOID(file.commit());
  if (generation.failed() == 0) return exit_done;
  log(LogLevel::error, "{} of {} rows failed; each line's \"error\" says why", generation.failed(), generation.rows());
  return exit_rows_failed;
}

// This process is one rank of those that a launcher started: rank 0 does what generate does, the others compute for it.
Result<int> generate_launched(GenerateOptions& options, const ModelConfig& config) {
  CHORUS_TRY(const LauncherEnvironment environment, detect_launcher(environment_variable));
  if (environment.rank != 0) set_log_level(std::max(log_level(), LogLevel::warning));
  options.engine.assignment = AssignmentName::modulo;
  CHORUS_TRY(options.engine, fit_to_kv_memory(options.engine, config, detect_node()));
  CHORUS_TRY(const auto world, LaunchedWorld::join(environment, options.engine, config, interrupted));
  if (world->rank() != 0) {
    CHORUS_TRY_VOID(world->serve());
    CHORUS_TRY_VOID(world->part());
    return exit_done;
  }
  const auto model = with_tokenizer(config);
  const auto status =
      model.ok() ? generate_with(options, *model, [&] { return world->start_fleet(model->config); }) : model.error();
  if (!status.ok()) {
    world->abort(status.error());
    return status;
  }
  CHORUS_TRY_VOID(world->part());
  return status;
}

Result<int> generate(GenerateOptions& options) {
  CHORUS_TRY(const ModelConfig config, read_model(options.engine));
  if (options.engine.distributed_executor_backend == "external_launcher") return generate_launched(options, config);
  CHORUS_TRY(options.engine, fit_to_kv_memory(options.engine, config, detect_node()));
  CHORUS_TRY(const TextModel model, with_tokenizer(config));
  return generate_with(options, model, [&] { return launch_fleet(options.engine, model.config, interrupted); });
}

}  // namespace

std::function<Result<int>()> declare_generate(Options& options) {
  auto values = std::make_shared<GenerateOptions>();
  options.positional("MODEL", &values->engine.model, "Hugging Face model directory");
  options.list("--prompt", &values->prompts, "a prompt; repeatable");
  options.text("--input", &values->input,
               "JSON lines {\"id\"?, \"prompt\" | \"prompt_token_ids\" | \"messages\", ...}; - or nothing: stdin");
  options.text("--output", &values->output, "where the JSON lines go; nothing: stdout");
  options.flag("--metrics", &values->metrics, "add dp_rank and metrics to each line");
  options.flag("--disable-progress-bars", &values->disable_progress_bars, "no progress on stderr");
  options.engine(&values->engine);
  options.sampling(&values->sampling);
  return [values] { return generate(*values); };
}

}  // namespace chorus

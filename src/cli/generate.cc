// chorus generate MODEL: prompts in, JSON lines out, in input order.
#include <fmt/format.h>
#include <unistd.h>

#include <deque>
#include <nlohmann/json.hpp>

#include "base/log.h"
#include "cli/commands.h"
#include "cli/progress.h"
#include "cli/row_output.h"
#include "cli/row_reader.h"
#include "cli/version.h"
#include "config/model_files.h"
#include "exec/kv_capacity.h"
#include "exec/load_weights.h"
#include "frontend/chat_format.h"
#include "frontend/offline.h"
#include "frontend/output_line.h"
#include "frontend/prompt_line.h"
#include "frontend/read_model.h"
#include "frontend/text_engine.h"
#include "launch/launch_fleet.h"
#include "launch/launched_world.h"
#include "net/archive.h"
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

// Where rows come from beside --prompt: a file, "-" for stdin, or nothing.
std::string input_of(const GenerateOptions& options) {
  return options.input.empty() && options.prompts.empty() ? "-" : options.input;
}

// What the output's bytes depend on beside its rows. A model file counts by its name, size and time.
Result<RowDependencies> dependencies_of(const GenerateOptions& options, const ModelConfig& model,
                                        const GenerationOptions& defaults) {
  const EngineConfig& engine = options.engine;
  CHORUS_TRY(const Isa isa, choose_isa(engine.device, engine.cpu_isa));
  ModelConfig read = model;
  read.directory.clear();
  Digest config, sampling;
  config.add(archive::encode_value(read));
  sampling.add(archive::encode_value(defaults));
  return RowDependencies{{"release", version()},
                         {"numerics profile", numerics_profile(isa, engine, model)},
                         {"model files", model_files_digest(engine.model)},
                         {"model config", config.text()},
                         {"dummy weights", engine.load_format == LoadFormat::dummy ? "true" : "false"},
                         {"max-model-len", fmt::to_string(engine.max_model_len)},
                         {"seed", fmt::to_string(engine.seed)},
                         {"sampling options", sampling.text()},
                         {"metrics", options.metrics ? "true" : "false"}};
}

// Holds results until every earlier one is written.
class OrderedWriter {
 public:
  OrderedWriter(RowOutput& file, bool metrics) : file_(file), metrics_(metrics) {}

  // Before the row runs; in the order of the rows, without gaps.
  void expect(std::size_t index, InputRow& row) {
    const SamplingParams& params = row.line.input.options.params;
    const bool logprobs = params.logprobs.has_value() || !params.logprob_token_ids.empty();
    const OutputLineFields fields{logprobs, params.prompt_logprobs.has_value(), metrics_};
    if (rows_.empty()) first_ = index;
    rows_.push_back({std::move(row.line.id), row.hash, fields, std::nullopt});
  }

  Result<void> take(std::size_t index, GenerationOutput&& output) {
    rows_[index - first_].output = std::move(output);
    for (; !rows_.empty() && rows_.front().output; rows_.pop_front(), ++first_) {
      const Row& row = rows_.front();
      line_.clear();
      append_output_line(row.id, *row.output, row.fields, &line_);
      CHORUS_TRY_VOID(file_.write(line_, row.hash, row.output->error.has_value()));
    }
    return {};
  }

  std::size_t held() const { return rows_.size(); }  // expected and not written

 private:
  struct Row {
    Json id;
    Hash128 hash;
    OutputLineFields fields;
    std::optional<GenerationOutput> output;
  };
  RowOutput& file_;
  bool metrics_;
  std::deque<Row> rows_;   // the first is the next to be written
  std::size_t first_ = 0;  // its index
  std::string line_;
};

// Who gets a row depends on all rows: they are in memory then.
bool needs_all_rows(AssignmentName assignment) {
  return assignment == AssignmentName::contiguous || assignment == AssignmentName::priority;
}

// From the rows to the output.
class Generation {
 public:
  Generation(const GenerateOptions& options, RowReader& reader, RowOutput& file)
      : options_(options), reader_(reader), file_(file), writer_(file, options.metrics) {}

  Result<void> run(TextEngine& engine) {
    ProgressLine progress("generate", options_.disable_progress_bars, reader_.total());
    const std::size_t rows_kept = reader_.rows();
    std::vector<OfflineRow> dealt;
    OfflineWork work;
    work.next = [this] { return next(); };
    work.may_read = [this] { return writer_.held() < rows_held_max && reader_.is_ready(); };
    if (needs_all_rows(options_.engine.assignment)) {
      CHORUS_TRY(dealt, read_all());
      work.next = rows_of(&dealt);
      work.may_read = {};
    }
    work.on_finished = [this](std::size_t index, GenerationOutput&& output) {
      return writer_.take(index, std::move(output));
    };
    work.on_progress = [&](const GenerationProgress& now) {
      progress.update({rows_kept + now.finished, now.output_tokens});
    };
    work.between_polls = [this] { return file_.flush(); };
    work.interrupted = interrupted;
    return run_offline(engine, work);
  }

 private:
  // Rows that are in flight or wait for an earlier one to be written.
  static constexpr std::size_t rows_held_max = 16384;

  Result<std::optional<OfflineRow>> next() {
    const std::size_t index = reader_.rows();
    CHORUS_TRY(std::optional<InputRow> row, reader_.next());
    if (!row) return std::optional<OfflineRow>();
    writer_.expect(index, *row);
    OfflineRow given{index, std::move(row->line.input)};
    const auto ranks = static_cast<std::size_t>(options_.engine.parallel.data_parallel_size);
    if (options_.engine.assignment == AssignmentName::modulo) given.input.dp_rank = static_cast<int>(index % ranks);
    return std::optional<OfflineRow>(std::move(given));
  }

  Result<std::vector<OfflineRow>> read_all() {
    const std::size_t rows_kept = reader_.rows();
    std::vector<GenerationInput> inputs;
    while (true) {
      CHORUS_TRY(std::optional<OfflineRow> row, next());
      if (!row) break;
      inputs.push_back(std::move(row->input));
    }
    std::vector<OfflineRow> dealt = deal(std::move(inputs), options_.engine);
    for (OfflineRow& row : dealt) row.index += rows_kept;
    return dealt;
  }

  const GenerateOptions& options_;
  RowReader& reader_;
  RowOutput& file_;
  OrderedWriter writer_;
};

// Goes on after the rows that an earlier run of the same command has left.
Result<void> pass_over_finished(RowReader& reader, RowOutput& file, const std::string& output) {
  CHORUS_TRY(const std::size_t records, reader.skip(file.found()));
  CHORUS_TRY_VOID(file.go_on_after(records));
  reader.set_now(file.begun_unix_s());
  if (file.found().empty()) return {};
  const std::uint64_t found = file.found().back().rows;
  const std::string of_all = reader.total() ? fmt::format(" of {}", *reader.total()) : "";
  if (records == file.found().size()) {
    log(LogLevel::info, "{}: going on after {}{} rows", output, found, of_all);
  } else if (records > 0) {
    log(LogLevel::warning, "{}: going on after {}{} rows, though {} were finished: behind them the input has changed",
        output, reader.rows(), of_all, found);
  } else {
    log(LogLevel::warning, "{}: starting anew, though {} rows were finished: the input has changed", output, found);
  }
  return {};
}

// From the prompts to the whole output, on the fleet that `start` gives.
using StartFleet = std::function<Result<std::unique_ptr<Fleet>>()>;
Result<void> generate_rows(const GenerateOptions& options, const TextModel& model, const StartFleet& start,
                           RowReader& reader, RowOutput& file) {
  CHORUS_TRY_VOID(pass_over_finished(reader, file, options.output));
  CHORUS_TRY(const auto fleet, start());
  TextEngine engine(*fleet, model.tokenizer, options.engine, model.config, seed_by_prompt(options.engine.seed),
                    offline_limits(options.engine));
  CHORUS_TRY_VOID(Generation(options, reader, file).run(engine));
  return file.commit();
}

Result<int> generate_with(const GenerateOptions& options, const TextModel& model, const StartFleet& start) {
  CHORUS_TRY(const ChatFormat chat, ChatFormat::load(options.engine.model));
  GenerationOptions defaults = default_generation_options(model.config, options.engine.generation_config != "chorus");
  CHORUS_TRY_VOID(apply_given(options.sampling, &defaults));
  const std::string input = input_of(options);
  CHORUS_TRY(RowReader reader, RowReader::open(options.prompts, input, chat, defaults));
  CHORUS_TRY(const RowDependencies dependencies, dependencies_of(options, model.config, defaults));
  CHORUS_TRY(const auto file, RowOutput::open(options.output, {input == "-" ? "/dev/stdin" : input}, dependencies));
  const auto generated = generate_rows(options, model, start, reader, *file);
  if (!generated.ok()) return file->end_early(generated.error());
  if (file->failed() == 0) return exit_done;
  log(LogLevel::error, "{} of {} rows failed; each line's \"error\" says why", file->failed(), reader.rows());
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
  options.positional("MODEL", &values->engine.model, "Hugging Face model directory or .gguf file");
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

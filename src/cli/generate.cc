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
#include "fleet/launched_world.h"
#include "frontend/chat_format.h"
#include "frontend/output_line.h"
#include "frontend/prompt_line.h"
#include "frontend/text_generator.h"
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

Result<PromptRows> read_rows(const GenerateOptions& options, const ChatFormat& chat,
                             const GenerationOptions& defaults) {
  PromptRows rows;
  for (const std::string& prompt : options.prompts) {
    rows.ids.push_back(rows.ids.size());
    GenerationInput& input = rows.inputs.emplace_back();
    input.prompt = prompt;
    input.options = defaults;
  }
  if (!options.input.empty() && options.input != "-") {
    CHORUS_TRY_VOID(read_prompt_file(options.input, chat, defaults, &rows));
  } else if (options.prompts.empty() || options.input == "-") {
    CHORUS_TRY_VOID(read_prompt_lines(std::cin, "stdin", chat, defaults, &rows));
  }
  return rows;
}

// Holds results until every earlier one is written.
class OrderedWriter {
 public:
  OrderedWriter(OutputFile& file, const PromptRows& rows, bool metrics) : file_(file), rows_(rows), metrics_(metrics) {}
  void take(std::size_t index, GenerationOutput&& output) {
    failed_ += output.error ? 1 : 0;
    waiting_.emplace(index, std::move(output));
    for (auto first = waiting_.begin(); first != waiting_.end() && first->first == next_; first = waiting_.begin()) {
      line_.clear();
      append_output_line(rows_.ids[next_], first->second, rows_.inputs[next_].options, metrics_, &line_);
      if (status_.ok()) status_ = file_.write(line_);
      waiting_.erase(first);
      ++next_;
    }
  }
  const Result<void>& status() const { return status_; }
  std::size_t failed() const { return failed_; }

 private:
  OutputFile& file_;
  const PromptRows& rows_;
  bool metrics_;
  std::map<std::size_t, GenerationOutput> waiting_;
  std::size_t next_ = 0;
  std::size_t failed_ = 0;
  std::string line_;
  Result<void> status_;
};

// From the prompts to the whole output, on the fleet that `start` gives.
using StartFleet = std::function<Result<std::unique_ptr<Fleet>>()>;
Result<int> generate_with(const GenerateOptions& options, const TextModel& model, const StartFleet& start) {
  CHORUS_TRY(const ChatFormat chat, ChatFormat::load(options.engine.model));
  GenerationOptions defaults = default_generation_options(model.config, options.engine.generation_config != "chorus");
  CHORUS_TRY_VOID(apply_given(options.sampling, &defaults));
  CHORUS_TRY(const PromptRows rows, read_rows(options, chat, defaults));
  CHORUS_TRY(OutputFile file, OutputFile::open(options.output));
  CHORUS_TRY(const auto fleet, start());

  TextGenerator generator(*fleet, model.tokenizer, options.engine, model.config);
  OrderedWriter writer(file, rows, options.metrics);
  ProgressLine progress("generate", options.disable_progress_bars);
  TextGenerator::Callbacks callbacks;
  callbacks.on_finished = [&](std::size_t index, GenerationOutput&& output) { writer.take(index, std::move(output)); };
  callbacks.on_progress = [&](const GenerationProgress& now) { progress.update(now); };
  callbacks.interrupted = [&] { return interrupted() || !writer.status().ok(); };
  const auto generated = generator.generate(rows.inputs, callbacks);
  progress.finish();
  if (!writer.status().ok()) return writer.status().error();
  CHORUS_TRY_VOID(generated);
  CHORUS_TRY_VOID(file.commit());
  if (writer.failed() > 0) {
    log(LogLevel::error, "{} of {} rows failed; each line's \"error\" says why", writer.failed(), rows.inputs.size());
    return exit_rows_failed;
  }
  return exit_done;
}

// This process is one rank of those that a launcher started: rank 0 does what generate does, the others compute for it.
Result<int> generate_launched(GenerateOptions& options, const ModelConfig& config) {
  CHORUS_TRY(const LauncherEnvironment environment, detect_launcher(environment_variable));
  if (environment.rank != 0) set_log_level(std::max(log_level(), LogLevel::warning));
  options.engine.assignment = AssignmentName::modulo;
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
  CHORUS_TRY(const TextModel model, with_tokenizer(config));
  return generate_with(options, model, [&] { return Fleet::start(options.engine, model.config, interrupted); });
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

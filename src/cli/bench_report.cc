#include "cli/bench_report.h"

#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>
#include <utility>

#include "base/log.h"
#include "cli/output_file.h"
#include "cli/progress.h"
#include "json/file_write.h"

namespace chorus {
namespace {

// RESULT.svg beside RESULT.json.
std::string plot_path(std::string path) {
  constexpr std::string_view json = ".json";
  if (path.ends_with(json)) path.resize(path.size() - json.size());
  return path + ".svg";
}

Result<void> write(const BenchResult& result, const BenchOptions& options, OutputFile* file) {
  CHORUS_TRY_VOID(file->write(result.json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n"));
  const bool is_file = !file->partial_path().empty();
  CHORUS_TRY_VOID(file->commit());
  if (!is_file || result.plot.panels.empty()) return {};
  return replace_file(plot_path(options.output_json), svg_of(result.plot));
}

}  // namespace

void BenchOptions::declare(Options& options) {
  options.text("--output-json", &output_json,
               "where the result goes as one JSON object, and beside it, as .svg, a plot");
  options.flag("--disable-progress-bars", &disable_progress_bars, "no progress on stderr");
}

BenchHooks hooks_of(const BenchOptions& options) {
  BenchHooks hooks;
  hooks.interrupted = interrupted;
  hooks.begin_progress = [disabled = options.disable_progress_bars](const std::string& what, std::size_t total) {
    return [line = std::make_shared<ProgressLine>(what, disabled, total)](const GenerationProgress& now) {
      line->update(now);
    };
  };
  return hooks;
}

Result<int> report(const BenchOptions& options, const std::function<Result<BenchResult>(const BenchHooks&)>& measure,
                   const std::function<Result<void>(const Json& result)>& save) {
  std::optional<OutputFile> file;
  if (!options.output_json.empty()) {
    CHORUS_TRY(OutputFile opened, OutputFile::open(options.output_json, options.inputs));
    file.emplace(std::move(opened));
  }
  CHORUS_TRY(const BenchResult result, measure(hooks_of(options)));
  std::fputs(result.table.c_str(), stdout);
  const Result<void> saved = save ? save(result.json) : Result<void>();
  const Result<void> written = file ? write(result, options, &*file) : Result<void>();
  if (!saved.ok() && !written.ok()) log(LogLevel::error, "{}", written.error().message);
  if (!saved.ok()) return saved.error();
  if (!written.ok()) return written.error();
  if (result.failed == 0) return exit_done;
  log(LogLevel::error, "{} requests failed; the first one: {}", result.failed, result.first_error);
  return exit_rows_failed;
}

}  // namespace chorus

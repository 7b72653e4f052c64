#include "workflow/node_run.h"

#include <algorithm>

#include "base/check.h"
#include "base/log.h"
#include "cluster/partition/assignment.h"
#include "json/file_write.h"

namespace chorus {
namespace {

RowResult failed_row(std::string why) {
  RowResult result;
  result.error = std::move(why);
  return result;
}

}  // namespace

// The row whose line an entry of the journal holds, as finish() made it. A file is input: whatever else may be in it is
// no row.
std::optional<std::size_t> NodeRun::row_of(const Json& entry) const {
  if (!entry.is_object() || !entry.contains("row") || !entry.contains("line")) return std::nullopt;
  const Json& number = entry["row"];
  const Json& line = entry["line"];
  if (!number.is_number_integer() || number < 0 || number >= lines_.size() || !line.is_object()) return std::nullopt;
  const auto row = number.get<std::size_t>();
  const auto member = [&line](const std::string& name) { return line.contains(name) ? line[name] : Json(false); };
  if (member(input_.primary_key) != (*input_.records)[row][input_.primary_key]) return std::nullopt;
  if (member("error").is_string()) return row;
  const bool done = member("error").is_null() && member(params().name).is_string() &&
                    member("finish_reason").is_string() && member("usage").is_object();
  return done ? std::optional(row) : std::nullopt;
}

// Rows that succeeded before. Those that failed are tried again.
void NodeRun::resume() {
  if (journal_.other_fingerprint()) {
    log(LogLevel::warning,
        "{}: the workflow, its inputs or the numerics profile changed since the run that was cut off; starting afresh",
        params().name);
  }
  std::size_t foreign = 0;
  for (const std::string& line : journal_.lines()) {
    const auto entry = parse_json(line);
    const auto row = entry.ok() ? row_of(*entry) : std::nullopt;
    if (!row) ++foreign;
    if (!row || !(*entry)["line"]["error"].is_null() || !lines_[*row].is_null()) continue;
    lines_[*row] = (*entry)["line"];
    ++resumed_;
  }
  if (foreign != 0) {
    log(LogLevel::warning, "{}: {} lines of the journal are no rows of this run; what they stood for is computed again",
        params().name, foreign);
  }
  done_ = resumed_;
  if (resumed_ != 0) log(LogLevel::info, "{}: going on after {} of {} rows", params().name, resumed_, lines_.size());
}

Result<Json> NodeRun::fields_of(std::size_t row) const {
  Json fields = (*input_.records)[row];
  for (const NodeOutputs* earlier : earlier_) {
    if (!earlier->texts[row]) return fail(ErrorCode::invalid_argument, "{} failed for this row", earlier->name);
    fields[earlier->name] = *earlier->texts[row];
  }
  return fields;
}

std::vector<PromptRow> NodeRun::render_rows() {
  const std::int64_t now = journal_.begun_unix_s();  // a run that goes on renders what it would have rendered
  std::vector<PromptRow> rows;
  for (std::size_t row = 0; row < lines_.size(); ++row) {
    if (!lines_[row].is_null()) continue;
    const Result<Json> fields = fields_of(row);
    const auto prompt =
        fields.ok() ? input_.prompt->render(*fields, now) : Result<PromptSource::Prompt>(fields.error());
    if (prompt.ok()) {
      rows.push_back({row, prompt->text, prompt->messages, 0, now});
    } else {
      finish(row, failed_row(prompt.error().message));
    }
  }
  return rows;
}

void NodeRun::finish(std::size_t row, const RowResult& result) {
  const Json& record = (*input_.records)[row];
  Json line = Json::object();
  line[input_.primary_key] = record[input_.primary_key];
  line[params().name] = result.error ? Json(nullptr) : Json(result.text);
  line["finish_reason"] = result.error ? Json(nullptr) : Json(result.finish_reason);
  line["usage"] = {{"prompt_tokens", result.prompt_tokens},
                   {"completion_tokens", result.completion_tokens},
                   {"total_tokens", result.prompt_tokens + result.completion_tokens}};
  line["error"] = result.error ? Json(*result.error) : Json(nullptr);
  CHECK(lines_[row].is_null(), "row {} has two results", row);
  lines_[row] = std::move(line);
  ++done_;
}

Result<void> NodeRun::record(std::size_t row, const RowResult& result) {
  finish(row, result);
  return journal_.append(
      Json{{"row", row}, {"line", lines_[row]}}.dump(-1, ' ', false, Json::error_handler_t::replace));
}

Error NodeRun::interrupted_error() const {
  return fail(ErrorCode::cancelled, "{}: interrupted after {} of {} rows; run again to go on", params().name, done_,
              lines_.size());
}

Result<void> NodeRun::run_batch(std::size_t number, std::span<PromptRow> rows, BatchGenerator* generator) {
  const std::vector<std::size_t> split =
      even_split(rows.size(), static_cast<std::size_t>(std::max(generator->rank_count(), 1)));
  std::size_t at = 0;
  for (std::size_t rank = 0; rank < split.size(); ++rank) {
    log(LogLevel::info, "Assigned {} prompts to rank {}", split[rank], rank);
    for (std::size_t n = 0; n < split[rank]; ++n) rows[at++].dp_rank = static_cast<int>(rank);
  }
  const double timeout_s = params().batch_timeout_s;
  const bool has_deadline = timeout_s > 0 && timeout_s < 1e9;
  const auto deadline =
      has_deadline ? std::optional(monotonic_now() + static_cast<Nanoseconds>(timeout_s * 1e9)) : std::nullopt;
  std::vector<bool> answered(split.size());
  const auto on_row = [&](std::size_t index, RowResult&& result) {
    CHECK(index < rows.size(), "row {} of {}", index, rows.size());
    const int rank = result.dp_rank;
    if (rank >= 0 && static_cast<std::size_t>(rank) < answered.size()) answered[static_cast<std::size_t>(rank)] = true;
    return record(rows[index].row, result);
  };
  CHORUS_TRY_VOID(generator->generate_batch(rows, deadline, on_row));
  for (const PromptRow& row : rows) {
    if (!lines_[row.row].is_null()) continue;
    CHORUS_TRY_VOID(record(row.row, failed_row(fmt::format("batch_timeout: not done within {} s", timeout_s))));
  }
  for (std::size_t rank = 0; rank < answered.size(); ++rank) {
    if (answered[rank]) log(LogLevel::info, "Received results for batch {} from rank {}", number, rank);
  }
  return journal_.sync();
}

Result<void> NodeRun::generate(std::vector<PromptRow> rows, const BatchGeneratorFactory& factory,
                               const WorkflowHooks& hooks) {
  if (rows.empty()) return {};
  CHORUS_TRY(const std::unique_ptr<BatchGenerator> generator, factory(params()));
  std::size_t number = 0;
  for (std::size_t begin = 0; begin < rows.size(); begin += params().batch_size) {
    if (hooks.interrupted && hooks.interrupted()) return interrupted_error();
    const std::size_t size = std::min(params().batch_size, rows.size() - begin);
    const auto batch = run_batch(number++, std::span(rows).subspan(begin, size), generator.get());
    if (!batch.ok() && batch.error().code == ErrorCode::cancelled) return interrupted_error();
    CHORUS_TRY_VOID(batch);
    if (hooks.on_progress) hooks.on_progress(params(), done_, lines_.size());
  }
  return {};
}

Result<NodeReport> NodeRun::run(const BatchGeneratorFactory& factory, const WorkflowHooks& hooks) {
  lines_.assign(input_.records->size(), nullptr);
  resume();
  CHORUS_TRY_VOID(generate(render_rows(), factory, hooks));
  NodeReport report;
  report.id = input_.node->id;
  report.output_path = input_.output_path;
  report.rows = lines_.size();
  report.resumed = resumed_;
  std::string text;
  for (const Json& line : lines_) {
    ++(line["error"].is_null() ? report.succeeded : report.failed);
    text += line.dump(-1, ' ', false, Json::error_handler_t::replace);
    text += "\n";
  }
  CHORUS_TRY_VOID(replace_file(input_.output_path, text));
  return report;
}

NodeOutputs NodeRun::outputs() const {
  NodeOutputs outputs;
  outputs.name = params().name;
  for (const Json& line : lines_) {
    const Json& text = line[outputs.name];
    outputs.texts.push_back(text.is_string() ? std::optional(text.get<std::string>()) : std::nullopt);
  }
  return outputs;
}

}  // namespace chorus

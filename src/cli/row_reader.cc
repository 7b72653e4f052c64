#include "cli/row_reader.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "cli/options.h"

namespace chorus {
namespace {

constexpr int input_wait_ms = 100;

Hash128 hash_of(const InputLine& line) {
  ByteHash hash(digest_key);
  hash.add(line.number == 0 ? "prompt " : "line ");
  hash.add(line.text);
  return hash.value();
}

}  // namespace

Result<RowReader> RowReader::open(const std::vector<std::string>& prompts, const std::string& path,
                                  const ChatFormat& chat, const GenerationOptions& defaults) {
  RowReader reader(prompts, defaults);
  reader.total_ = prompts.size();
  if (path.empty()) return reader;
  CHORUS_TRY(const auto rows, check_prompt_file(path, defaults));
  reader.total_ = rows ? std::optional(*reader.total_ + *rows) : std::nullopt;
  CHORUS_TRY(PromptReader lines, PromptReader::open(path, &chat, defaults));
  reader.lines_.emplace(std::move(lines));
  return reader;
}

void RowReader::set_now(std::int64_t now_unix_s) {
  if (lines_) lines_->set_now(now_unix_s);
}

Result<bool> RowReader::read(InputLine* line) {
  if (prompts_read_ == prompts_.size()) return lines_ ? lines_->read(line) : Result<bool>(false);
  *line = {prompts_[prompts_read_++], 0};
  return true;
}

Result<bool> RowReader::wait_and_read(InputLine* line) {
  while (prompts_read_ == prompts_.size() && lines_ && !lines_->is_ready(input_wait_ms)) {
    if (interrupted()) break;
  }
  if (interrupted()) return fail(ErrorCode::cancelled, "interrupted");
  return read(line);
}

Result<bool> RowReader::skip_to(const RowRecord& record, const RowRecord& before) {
  ByteHash input = digest_after(before.input);
  for (std::uint64_t row = before.rows; row < record.rows; ++row) {
    InputLine& line = ahead_.emplace_back();
    CHORUS_TRY(const bool there, wait_and_read(&line));
    if (!there) {
      ahead_.pop_back();
      return false;
    }
    add_row(hash_of(line), &input);
  }
  if (text_of(input.value()) != record.input) return false;
  rows_ = record.rows;
  ahead_.clear();
  return true;
}

Result<std::size_t> RowReader::skip(std::span<const RowRecord> records) {
  RowRecord before;
  for (std::size_t i = 0; i < records.size(); ++i) {
    CHORUS_TRY(const bool same, skip_to(records[i], before));
    if (!same) return i;
    before = records[i];
  }
  return records.size();
}

Result<PromptLine> RowReader::parse(InputLine* line) {
  if (line->number != 0) return lines_->parse(*line);
  PromptLine row;
  row.input.prompt = std::move(line->text);
  row.input.options = defaults_;
  return row;
}

Result<std::optional<InputRow>> RowReader::next() {
  if (ahead_.empty()) {
    CHORUS_TRY(const bool there, read(&line_));
    if (!there) return std::optional<InputRow>();
  } else {
    line_ = std::move(ahead_.front());
    ahead_.pop_front();
  }
  InputRow row{{}, hash_of(line_)};
  CHORUS_TRY(row.line, parse(&line_));
  if (row.line.id.is_null()) row.line.id = rows_;
  row.line.input.return_prompt = true;
  ++rows_;
  return std::optional<InputRow>(std::move(row));
}

bool RowReader::is_ready() {
  return !ahead_.empty() || prompts_read_ < prompts_.size() || !lines_ || lines_->is_ready();
}

}  // namespace chorus

#include "cli/row_output.h"

#include <fmt/ranges.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <nlohmann/json.hpp>

#include "base/check.h"
#include "base/log.h"
#include "json/file_write.h"
#include "json/json.h"

namespace chorus {
namespace {

constexpr Nanoseconds record_interval = 1'000'000'000;
// Between two records. What is read of an input before it is known to belong to a record waits in memory (RowReader).
constexpr std::uint64_t rows_between_records_max = 4096, bytes_between_records_max = 16 << 20;
constexpr std::size_t pending_bytes_max = 64 << 10;

std::int64_t unix_now_s() {
  return std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count();
}

std::string fingerprint_of(const RowDependencies& dependencies) {
  Json all = Json::object();
  for (const auto& [name, value] : dependencies) all[name] = value;
  return all.dump(-1, ' ', false, Json::error_handler_t::replace);
}

// Names of those that the other fingerprint has with another value, or not.
std::vector<std::string> differences(const RowDependencies& dependencies, const std::string& other) {
  std::vector<std::string> names;
  const auto theirs = parse_json(other);
  for (const auto& [name, value] : dependencies) {
    const bool same = theirs.ok() && theirs->is_object() && theirs->contains(name) && (*theirs)[name] == value;
    if (!same) names.push_back(name);
  }
  return names;
}

std::string line_of(const RowRecord& record) {
  return fmt::format(R"({{"rows":{},"failed":{},"bytes":{},"input":"{}","output":"{}"}})", record.rows, record.failed,
                     record.bytes, record.input, record.output);
}

std::optional<RowRecord> parse_record(const std::string& line) {
  const auto json = parse_json(line);
  if (!json.ok() || !json->is_object()) return std::nullopt;
  for (const char* name : {"rows", "failed", "bytes"}) {
    const auto found = json->find(name);
    if (found == json->end() || !found->is_number_integer() || *found < 0) return std::nullopt;
  }
  for (const char* name : {"input", "output"}) {
    const auto found = json->find(name);
    if (found == json->end() || !found->is_string()) return std::nullopt;
  }
  return RowRecord{(*json)["rows"], (*json)["failed"], (*json)["bytes"], (*json)["input"], (*json)["output"]};
}

// Adds the bytes [from, to) of the file. False: it has not so many, or they cannot be read.
bool add_bytes(int file, std::uint64_t from, std::uint64_t to, ByteHash* hash) {
  std::array<char, 65536> buffer;
  while (from < to) {
    const std::size_t wanted = std::min<std::uint64_t>(to - from, buffer.size());
    const ssize_t count = ::pread(file, buffer.data(), wanted, static_cast<off_t>(from));
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return false;
    hash->add({buffer.data(), static_cast<std::size_t>(count)});
    from += static_cast<std::uint64_t>(count);
  }
  return true;
}

}  // namespace

ByteHash digest_after(const std::string& digest_before) {
  ByteHash hash(digest_key);
  hash.add(digest_before);
  return hash;
}

void add_row(const Hash128& row, ByteHash* input) {
  input->add({reinterpret_cast<const char*>(&row.low), sizeof(row.low)});
  input->add({reinterpret_cast<const char*>(&row.high), sizeof(row.high)});
}

RowOutput::RowOutput(OutputFile file, std::int64_t now_unix_s)
    : file_(std::move(file)),
      begun_unix_s_(now_unix_s),
      written_{0, 0, 0, digest_after(""), digest_after("")},
      with_kernel_(written_),
      recorded_at_(monotonic_now()) {}

Result<std::unique_ptr<RowOutput>> RowOutput::open(const std::string& path, const std::vector<std::string>& inputs,
                                                   const RowDependencies& dependencies) {
  CHORUS_TRY(OutputFile file, OutputFile::open_to_go_on(path, inputs));
  std::unique_ptr<RowOutput> output(new RowOutput(std::move(file), unix_now_s()));
  if (!output->file_.partial_path().empty()) {
    CHORUS_TRY_VOID(refuse_overwriting(output->file_.partial_path() + ".journal", inputs));
    CHORUS_TRY_VOID(output->open_journal(dependencies));
  }
  return output;
}

Result<void> RowOutput::open_journal(const RowDependencies& dependencies) {
  const std::string& partial = file_.partial_path();
  auto journal = Journal::open(partial + ".journal", fingerprint_of(dependencies), begun_unix_s_);
  if (!journal.ok()) return with_context(journal.error(), "output cannot be written");
  journal_.emplace(std::move(*journal));
  begun_unix_s_ = journal_->begun_unix_s();
  find_records();
  if (!found_.empty()) recorded_ = found_.back();
  const bool is_empty = ::lseek(file_.descriptor(), 0, SEEK_END) == 0;
  if (is_empty || !found_.empty()) return {};
  if (const auto& other = journal_->other_fingerprint()) {
    log(LogLevel::warning, "{}: starting anew, since these differ from the run that wrote it: {}", partial,
        fmt::join(differences(dependencies, *other), ", "));
  } else if (!journal_->lines().empty()) {
    log(LogLevel::warning, "{}: starting anew, since it was changed after it was written", partial);
  }
  return {};
}

// Whatever a crash has left out of order: a record counts as far as the bytes are those that it was written for.
void RowOutput::find_records() {
  RowRecord before;
  for (const std::string& line : journal_->lines()) {
    auto record = parse_record(line);
    if (!record || record->rows <= before.rows || record->bytes <= before.bytes) return;
    ByteHash output = digest_after(before.output);
    if (!add_bytes(file_.descriptor(), before.bytes, record->bytes, &output)) return;
    if (text_of(output.value()) != record->output) return;
    before = *record;
    found_.push_back(std::move(*record));
  }
}

RowOutput::~RowOutput() {
  if (!journal_) return;
  // Removed by somebody while it was written: then nothing is kept either.
  const bool leaves = recorded_.rows > 0 && file_.is_still_there();
  file_.leave(leaves);
  if (!leaves) (void)journal_->remove();
}

Result<void> RowOutput::go_on_after(std::size_t count) {
  if (!journal_) return {};
  CHECK(count <= found_.size(), "{} of {} records", count, found_.size());
  recorded_ = count > 0 ? found_[count - 1] : RowRecord();
  CHORUS_TRY_VOID(file_.keep_first(recorded_.bytes));
  CHORUS_TRY_VOID(journal_->keep(count, unix_now_s()));
  begun_unix_s_ = journal_->begun_unix_s();
  written_ = {recorded_.rows, recorded_.failed, recorded_.bytes, digest_after(recorded_.input),
              digest_after(recorded_.output)};
  with_kernel_ = written_;
  return {};
}

Result<void> RowOutput::write(std::string_view line, const Hash128& row, bool failed) {
  pending_ += line;
  written_.bytes += line.size();
  written_.failed += failed ? 1 : 0;
  ++written_.rows;
  if (journal_) {
    written_.output.add(line);
    add_row(row, &written_.input);
  }
  const bool is_due =
      pending_.size() >= pending_bytes_max || written_.rows - recorded_.rows == rows_between_records_max;
  return is_due ? flush() : Result<void>();
}

Result<void> RowOutput::write_pending() {
  if (pending_.empty()) return {};
  const auto wrote = file_.write(pending_);
  pending_.clear();
  if (wrote.ok()) {
    with_kernel_ = written_;
    return {};
  }
  written_ = with_kernel_;
  if (journal_) (void)file_.keep_first(with_kernel_.bytes);  // else the next run cuts the torn line off
  return wrote;
}

Result<void> RowOutput::flush() {
  CHORUS_TRY_VOID(write_pending());
  if (!journal_ || written_.rows == recorded_.rows) return {};
  const bool is_due = written_.rows - recorded_.rows >= rows_between_records_max ||
                      written_.bytes - recorded_.bytes >= bytes_between_records_max ||
                      monotonic_now() - recorded_at_ >= record_interval;
  return is_due ? record() : Result<void>();
}

Result<void> RowOutput::record() {
  const Nanoseconds now = monotonic_now();
  if (now - recorded_at_ >= record_interval) CHORUS_TRY_VOID(file_.sync());
  RowRecord next{written_.rows, written_.failed, written_.bytes, text_of(written_.input.value()),
                 text_of(written_.output.value())};
  CHORUS_TRY_VOID(journal_->append(line_of(next)));
  written_.input = digest_after(next.input);
  written_.output = digest_after(next.output);
  with_kernel_ = written_;
  recorded_ = std::move(next);
  recorded_at_ = now;
  return {};
}

Result<void> RowOutput::commit() {
  CHORUS_TRY_VOID(write_pending());
  CHORUS_TRY_VOID(file_.commit());
  if (!journal_) return {};
  (void)journal_->remove();  // one that stays belongs to no bytes any more
  journal_.reset();
  return {};
}

Error RowOutput::end_early(Error why) {
  (void)write_pending();
  if (!journal_) return why;
  // Where the disk is full, what was recorded before still counts.
  if (written_.rows > recorded_.rows && file_.sync().ok() && record().ok()) (void)journal_->sync();
  if (recorded_.rows == 0 || !file_.is_still_there()) return why;
  why.message += fmt::format("; {} finished rows are kept in {}: the same command goes on after them", recorded_.rows,
                             file_.partial_path());
  return why;
}

}  // namespace chorus

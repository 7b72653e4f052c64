#include "json/journal.h"

#include <unistd.h>

#include <array>
#include <cerrno>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/check.h"
#include "json/file_write.h"
#include "json/json.h"

namespace chorus {
namespace {

// A sync of each line would take longer than the work that it tells of.
constexpr Nanoseconds sync_interval = 1'000'000'000;
constexpr std::int64_t unix_s_max = 253'402'300'799;  // the end of the year 9999

}  // namespace

Result<Journal> Journal::open(const std::string& path, const std::string& fingerprint, std::int64_t now_unix_s) {
  CHORUS_TRY(const int file, open_locked(path));
  Journal journal(path, file, fingerprint);
  CHORUS_TRY_VOID(journal.load(now_unix_s));
  CHORUS_TRY_VOID(sync_directory_of(path));
  return journal;
}

Journal::Journal(Journal&& other) noexcept
    : path_(std::move(other.path_)),
      fingerprint_(std::move(other.fingerprint_)),
      file_(std::exchange(other.file_, -1)),
      size_(other.size_),
      other_fingerprint_(std::move(other.other_fingerprint_)),
      begun_unix_s_(other.begun_unix_s_),
      synced_at_(other.synced_at_),
      lines_(std::move(other.lines_)) {}

Journal::~Journal() {
  if (file_ >= 0) ::close(file_);
}

bool Journal::belongs_here() {
  if (lines_.empty()) return false;
  const auto first = parse_json(lines_[0]);
  const bool whole = first.ok() && first->is_object() && first->contains("fingerprint") && first->contains("now") &&
                     (*first)["fingerprint"].is_string() && (*first)["now"].is_number_integer() &&
                     (*first)["now"] >= 0 && (*first)["now"] <= unix_s_max;
  const std::string found = whole ? (*first)["fingerprint"].get<std::string>() : "";
  if (!whole || found != fingerprint_) {
    other_fingerprint_ = found;
    return false;
  }
  begun_unix_s_ = (*first)["now"].get<std::int64_t>();
  return true;
}

Result<std::string> Journal::read_all() {
  std::string text;
  std::array<char, 65536> buffer;
  for (;;) {
    const ssize_t count = ::read(file_, buffer.data(), buffer.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return file_error("read", path_, errno);
    if (count == 0) return text;
    text.append(buffer.data(), static_cast<std::size_t>(count));
  }
}

Result<void> Journal::load(std::int64_t now_unix_s) {
  CHORUS_TRY(const std::string text, read_all());
  for (std::size_t end = text.find('\n'); end != std::string::npos; end = text.find('\n', size_)) {
    lines_.push_back(text.substr(size_, end - size_));
    size_ = end + 1;
  }
  const bool belongs = belongs_here();
  // Without work to go on with, the time is now: an attempt that failed at once last week does not date this one.
  if (!belongs || lines_.size() == 1) return begin(now_unix_s);
  lines_.erase(lines_.begin());
  if (::ftruncate(file_, static_cast<off_t>(size_)) != 0) return file_error("ftruncate", path_, errno);
  return {};
}

Result<void> Journal::begin(std::int64_t now_unix_s) {
  lines_.clear();
  size_ = 0;
  begun_unix_s_ = now_unix_s;
  if (::ftruncate(file_, 0) != 0) return file_error("ftruncate", path_, errno);
  CHORUS_TRY_VOID(write_line(Json{{"fingerprint", fingerprint_}, {"now", now_unix_s}}.dump()));
  return sync();
}

Result<void> Journal::keep(std::size_t count, std::int64_t now_unix_s) {
  CHECK(count <= lines_.size(), "{} of {} lines", count, lines_.size());
  if (count == 0) return begin(now_unix_s);
  for (; lines_.size() > count; lines_.pop_back()) size_ -= lines_.back().size() + 1;
  if (::ftruncate(file_, static_cast<off_t>(size_)) != 0) return file_error("ftruncate", path_, errno);
  return {};
}

Result<void> Journal::write_line(std::string_view line) {
  if (::lseek(file_, static_cast<off_t>(size_), SEEK_SET) < 0) return file_error("lseek", path_, errno);
  const std::string text = fmt::format("{}\n", line);
  if (Result<void> result = write_all(file_, text, path_); !result.ok()) {
    // Leaves no torn line if it can; opening drops one anyway.
    if (::ftruncate(file_, static_cast<off_t>(size_)) != 0) return result;
    return result;
  }
  size_ += text.size();
  return {};
}

Result<void> Journal::append(std::string_view line) {
  CHORUS_TRY_VOID(write_line(line));
  return monotonic_now() - synced_at_ >= sync_interval ? sync() : Result<void>();
}

Result<void> Journal::sync() {
  if (::fdatasync(file_) != 0) return file_error("fdatasync", path_, errno);
  synced_at_ = monotonic_now();
  return {};
}

Result<void> Journal::remove() {
  if (::unlink(path_.c_str()) != 0) return file_error("unlink", path_, errno);
  return {};
}

}  // namespace chorus

#include "workflow/durable_file.h"

#include <unistd.h>

#include <array>
#include <cerrno>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "json/file_write.h"
#include "json/json.h"

namespace chorus {
namespace {

// A sync of each row would take longer than generating it.
constexpr Nanoseconds sync_interval = 1'000'000'000;

Result<void> write_temporary(int file, const std::string& temporary, std::string_view text) {
  if (::ftruncate(file, 0) != 0) return file_error("ftruncate", temporary, errno);
  CHORUS_TRY_VOID(write_all(file, text, temporary));
  if (::fsync(file) != 0) return file_error("fsync", temporary, errno);
  return {};
}

}  // namespace

Result<void> replace_file(const std::string& path, std::string_view text) {
  const std::filesystem::path target(path);
  const std::string temporary = (target.parent_path() / fmt::format(".{}.tmp", target.filename().string())).string();
  CHORUS_TRY(const int file, open_locked(temporary));
  Result<void> result = write_temporary(file, temporary, text);
  if (result.ok() && ::rename(temporary.c_str(), path.c_str()) != 0) result = file_error("rename", path, errno);
  if (!result.ok()) ::unlink(temporary.c_str());
  ::close(file);  // it is locked until it has its name, or none
  if (!result.ok()) return result;
  return sync_directory_of(path);
}

Result<Journal> Journal::open(const std::string& path, const std::string& fingerprint, std::int64_t now_unix_s) {
  CHORUS_TRY(const int file, open_locked(path));
  Journal journal(path, file);
  CHORUS_TRY_VOID(journal.load(fingerprint, now_unix_s));
  CHORUS_TRY_VOID(sync_directory_of(path));
  return journal;
}

Journal::Journal(Journal&& other) noexcept
    : path_(std::move(other.path_)),
      file_(std::exchange(other.file_, -1)),
      size_(other.size_),
      was_other_(other.was_other_),
      begun_unix_s_(other.begun_unix_s_),
      synced_at_(other.synced_at_),
      lines_(std::move(other.lines_)) {}

Journal::~Journal() {
  if (file_ >= 0) ::close(file_);
}

bool Journal::belongs_to(const std::string& fingerprint) {
  if (lines_.empty()) return false;
  const auto first = parse_json(lines_[0]);
  if (!first.ok() || !first->is_object() || !first->contains("fingerprint") || !first->contains("now")) return false;
  if ((*first)["fingerprint"] != fingerprint || !(*first)["now"].is_number_integer()) return false;
  begun_unix_s_ = (*first)["now"].get<std::int64_t>();
  return true;
}

Result<void> Journal::load(const std::string& fingerprint, std::int64_t now_unix_s) {
  std::string text;
  std::array<char, 65536> buffer;
  for (;;) {
    const ssize_t count = ::read(file_, buffer.data(), buffer.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return file_error("read", path_, errno);
    if (count == 0) break;
    text.append(buffer.data(), static_cast<std::size_t>(count));
  }
  for (std::size_t end = text.find('\n'); end != std::string::npos; end = text.find('\n', size_)) {
    lines_.push_back(text.substr(size_, end - size_));
    size_ = end + 1;
  }
  const bool belongs = belongs_to(fingerprint);
  // Without work to go on with, the time is now: an attempt that failed at once last week does not date this one.
  if (belongs && lines_.size() > 1) {
    lines_.erase(lines_.begin());
    if (::ftruncate(file_, static_cast<off_t>(size_)) != 0) return file_error("ftruncate", path_, errno);
    return {};
  }
  was_other_ = !lines_.empty() && !belongs;
  lines_.clear();
  size_ = 0;
  begun_unix_s_ = now_unix_s;
  if (::ftruncate(file_, 0) != 0) return file_error("ftruncate", path_, errno);
  CHORUS_TRY_VOID(write_line(Json{{"fingerprint", fingerprint}, {"now", now_unix_s}}.dump()));
  return sync();
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

#include "workflow/durable_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <system_error>

#include "json/json.h"

namespace chorus {
namespace {

// A sync of each row would take longer than generating it.
constexpr Nanoseconds sync_interval = 1'000'000'000;

// What the user can put right by naming another place or changing its rights is an invalid argument.
ErrorCode code_of(int number) {
  switch (number) {
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      return ErrorCode::resource_exhausted;
    case EACCES:
    case EPERM:
    case EROFS:
    case ENOTDIR:
    case EISDIR:
    case ELOOP:
    case ENAMETOOLONG:
      return ErrorCode::invalid_argument;
    default:
      return ErrorCode::internal;
  }
}

Error system_error(const char* call, const std::string& path, int number) {
  const ErrorCode code = code_of(number);
  const char* advice = "";
  if (code == ErrorCode::resource_exhausted) advice = "; make room and run again, finished rows are kept";
  if (code == ErrorCode::invalid_argument) advice = "; give an output_dir that can be written";
  return fail(code, "{}: {}: {}{}", path, call, std::generic_category().message(number), advice);
}

Result<void> write_all(int file, std::string_view text, const std::string& path) {
  while (!text.empty()) {
    const ssize_t written = ::write(file, text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return system_error("write", path, errno);
    text.remove_prefix(static_cast<std::size_t>(written));
  }
  return {};
}

Result<void> sync_directory_of(const std::string& path) {
  const std::string directory = std::filesystem::path(path).parent_path().string();
  const int file = ::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (file < 0) return system_error("open", directory, errno);
  const int result = ::fsync(file);
  const int number = errno;
  ::close(file);
  return result == 0 ? Result<void>() : Result<void>(system_error("fsync", directory, number));
}

Result<void> write_temporary(const std::string& temporary, std::string_view text) {
  const int file = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0666);
  if (file < 0) return system_error("open", temporary, errno);
  Result<void> result = write_all(file, text, temporary);
  if (result.ok() && ::fsync(file) != 0) result = system_error("fsync", temporary, errno);
  if (::close(file) != 0 && result.ok()) result = system_error("close", temporary, errno);
  return result;
}

}  // namespace

Result<void> replace_file(const std::string& path, std::string_view text) {
  const std::filesystem::path target(path);
  const std::string temporary = (target.parent_path() / fmt::format(".{}.tmp", target.filename().string())).string();
  Result<void> result = write_temporary(temporary, text);
  if (result.ok() && ::rename(temporary.c_str(), path.c_str()) != 0) result = system_error("rename", path, errno);
  if (!result.ok()) {
    ::unlink(temporary.c_str());
    return result;
  }
  return sync_directory_of(path);
}

Result<Journal> Journal::open(const std::string& path, const std::string& fingerprint, std::int64_t now_unix_s) {
  const int file = ::open(path.c_str(), O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0666);
  if (file < 0) return system_error("open", path, errno);
  Journal journal(path, file);
  if (::flock(file, LOCK_EX | LOCK_NB) != 0) {
    return fail(ErrorCode::unavailable, "{}: another run is writing here; wait for it or give another output_dir",
                path);
  }
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
    if (count < 0) return system_error("read", path_, errno);
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
    if (::ftruncate(file_, static_cast<off_t>(size_)) != 0) return system_error("ftruncate", path_, errno);
    return {};
  }
  was_other_ = !lines_.empty() && !belongs;
  lines_.clear();
  size_ = 0;
  begun_unix_s_ = now_unix_s;
  if (::ftruncate(file_, 0) != 0) return system_error("ftruncate", path_, errno);
  CHORUS_TRY_VOID(write_line(Json{{"fingerprint", fingerprint}, {"now", now_unix_s}}.dump()));
  return sync();
}

Result<void> Journal::write_line(std::string_view line) {
  if (::lseek(file_, static_cast<off_t>(size_), SEEK_SET) < 0) return system_error("lseek", path_, errno);
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
  if (::fdatasync(file_) != 0) return system_error("fdatasync", path_, errno);
  synced_at_ = monotonic_now();
  return {};
}

Result<void> Journal::remove() {
  if (::unlink(path_.c_str()) != 0) return system_error("unlink", path_, errno);
  return {};
}

}  // namespace chorus

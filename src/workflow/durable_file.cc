#include "workflow/durable_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <filesystem>
#include <system_error>

namespace chorus {
namespace {

Error system_error(const char* call, const std::string& path, int number) {
  const bool full = number == ENOSPC || number == EDQUOT || number == EFBIG;
  return fail(full ? ErrorCode::resource_exhausted : ErrorCode::internal, "{}: {}: {}{}", path, call,
              std::generic_category().message(number), full ? "; make room and run again, finished rows are kept" : "");
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

Result<Journal> Journal::open(const std::string& path, const std::string& fingerprint) {
  const int file = ::open(path.c_str(), O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0666);
  if (file < 0) return system_error("open", path, errno);
  Journal journal(path, file);
  if (::flock(file, LOCK_EX | LOCK_NB) != 0) {
    return fail(ErrorCode::unavailable, "{}: another run is writing here; wait for it or give another output_dir",
                path);
  }
  CHORUS_TRY_VOID(journal.load(fmt::format("{{\"fingerprint\":\"{}\"}}", fingerprint)));
  CHORUS_TRY_VOID(sync_directory_of(path));
  return journal;
}

Journal::Journal(Journal&& other) noexcept
    : path_(std::move(other.path_)),
      file_(std::exchange(other.file_, -1)),
      size_(other.size_),
      was_other_(other.was_other_),
      lines_(std::move(other.lines_)) {}

Journal::~Journal() {
  if (file_ >= 0) ::close(file_);
}

Result<void> Journal::load(const std::string& first_line) {
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
  if (!lines_.empty() && lines_[0] == first_line) {
    lines_.erase(lines_.begin());
    if (::ftruncate(file_, static_cast<off_t>(size_)) != 0) return system_error("ftruncate", path_, errno);
    return {};
  }
  was_other_ = !lines_.empty();
  lines_.clear();
  size_ = 0;
  if (::ftruncate(file_, 0) != 0) return system_error("ftruncate", path_, errno);
  return write_synced(first_line + "\n");
}

Result<void> Journal::write_synced(std::string_view text) {
  if (::lseek(file_, static_cast<off_t>(size_), SEEK_SET) < 0) return system_error("lseek", path_, errno);
  Result<void> result = write_all(file_, text, path_);
  if (result.ok() && ::fdatasync(file_) != 0) result = system_error("fdatasync", path_, errno);
  if (!result.ok()) {
    // Leaves no torn line if it can; opening drops one anyway.
    if (::ftruncate(file_, static_cast<off_t>(size_)) != 0) return result;
    return result;
  }
  size_ += text.size();
  return {};
}

Result<void> Journal::append(std::span<const std::string> lines) {
  std::string text;
  for (const std::string& line : lines) text += line + "\n";
  return write_synced(text);
}

Result<void> Journal::remove() {
  if (::unlink(path_.c_str()) != 0) return system_error("unlink", path_, errno);
  return {};
}

}  // namespace chorus

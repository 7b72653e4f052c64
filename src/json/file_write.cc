#include "json/file_write.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <optional>
#include <sstream>
#include <system_error>

#include "base/log.h"

namespace chorus {
namespace {

struct Cause {
  ErrorCode code;
  const char* advice;
};

Cause cause_of(int error_number) {
  switch (error_number) {
    case ENOSPC:
    case EDQUOT:
      return {ErrorCode::resource_exhausted, "; make room and run again"};
    case EFBIG:
      return {ErrorCode::resource_exhausted, "; raise the limit of a file's size (ulimit -f) and run again"};
    case EACCES:
    case EPERM:
      return {ErrorCode::invalid_argument, "; change its rights or its folder's, or give another place"};
    case EROFS:
      return {ErrorCode::invalid_argument, "; its file system is read-only, give another place"};
    case ENOENT:
      return {ErrorCode::invalid_argument, "; its folder is not there: make it, or give another place"};
    case ENOTDIR:
      return {ErrorCode::invalid_argument, "; a part of its path is a file where a folder must be: give another place"};
    case EISDIR:
      return {ErrorCode::invalid_argument, "; there is a folder of that name: remove it, or give another place"};
    case ELOOP:
      return {ErrorCode::invalid_argument, "; it is a symbolic link, which is not followed: remove it"};
    case ENAMETOOLONG:
      return {ErrorCode::invalid_argument, "; give a shorter name"};
    case EPIPE:
      return {ErrorCode::unavailable, "; whatever read it has ended"};
    case EBADF:
      return {ErrorCode::invalid_argument, "; it was closed before the start: open it, or name a file"};
    default:
      return {ErrorCode::internal, ""};
  }
}

bool same_file(const struct stat& a, const struct stat& b) {
  return a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

// The process that holds a lock on the file, from the kernel's table (proc_locks(5)): "1: FLOCK ADVISORY WRITE PID
// MAJOR:MINOR:INODE 0 EOF". By inode alone: on some file systems the device there is not stat()'s.
std::optional<int> lock_holder(ino_t inode) {
  std::ifstream locks("/proc/locks");
  const std::string wanted = fmt::format(":{}", inode);
  for (std::string line; std::getline(locks, line);) {
    std::istringstream words(line);
    std::string number, kind, advisory, mode, file;
    int pid = 0;
    if (!(words >> number >> kind >> advisory >> mode >> pid >> file)) continue;  // a waiting one has "->" in front
    if (kind == "FLOCK" && pid > 0 && file.ends_with(wanted)) return pid;
  }
  return std::nullopt;
}

Error held_by_another(const std::string& path, ino_t inode) {
  const auto holder = lock_holder(inode);
  return fail(ErrorCode::unavailable, "{}: another run is writing here{}; wait for it or give another place", path,
              holder ? fmt::format(" (process {})", *holder) : "");
}

Result<void> write_temporary(int file, const std::string& temporary, std::string_view text) {
  if (::ftruncate(file, 0) != 0) return file_error("ftruncate", temporary, errno);
  CHORUS_TRY_VOID(write_all(file, text, temporary));
  if (::fsync(file) != 0) return file_error("fsync", temporary, errno);
  return {};
}

}  // namespace

Error file_error(const char* call, const std::string& path, int error_number) {
  const Cause cause = cause_of(error_number);
  return fail(cause.code, "{}: {}: {}{}", path, call, std::generic_category().message(error_number), cause.advice);
}

Result<int> open_locked(const std::string& path) {
  // The holder renames the file when it is whole: then the lock is one on a file of another name, and the next attempt
  // makes a new one. Each attempt more needs another run that ended in between.
  constexpr int attempts_max = 100;
  for (int attempt = 0; attempt < attempts_max; ++attempt) {
    const int file = ::open(path.c_str(), O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0666);
    if (file < 0) return file_error("open", path, errno);
    const int locked = ::flock(file, LOCK_EX | LOCK_NB);
    const int error_number = errno;
    if (locked == 0 && is_still_named(file, path)) return file;
    struct stat status {};
    ::fstat(file, &status);
    if (locked != 0 && error_number != EWOULDBLOCK) {
      log(LogLevel::warning, "{}: its file system knows no locks ({}); two runs must not write here at once", path,
          std::generic_category().message(error_number));
      return file;
    }
    ::close(file);
    if (locked != 0) return held_by_another(path, status.st_ino);
  }
  return fail(ErrorCode::unavailable, "{}: replaced {} times while it was opened", path, attempts_max);
}

bool is_still_named(int file, const std::string& path) {
  struct stat opened {
  }, named{};
  return ::fstat(file, &opened) == 0 && ::lstat(path.c_str(), &named) == 0 && same_file(opened, named);
}

Result<void> write_all(int file, std::string_view text, const std::string& path) {
  while (!text.empty()) {
    const ssize_t written = ::write(file, text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return file_error("write", path, errno);
    text.remove_prefix(static_cast<std::size_t>(written));
  }
  return {};
}

Result<void> sync_directory_of(const std::string& path) {
  const std::filesystem::path parent = std::filesystem::path(path).parent_path();
  const std::string directory = parent.empty() ? "." : parent.string();
  const int file = ::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (file < 0) return file_error("open", directory, errno);
  const int result = ::fsync(file);
  const int error_number = errno;
  ::close(file);
  // Some network file systems sync no directories (fsync(2): EINVAL).
  if (result != 0 && error_number != EINVAL) return file_error("fsync", directory, error_number);
  return {};
}

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

Result<void> refuse_overwriting(const std::string& output, const std::vector<std::string>& inputs) {
  struct stat written {};
  if (output.empty() || ::stat(output.c_str(), &written) != 0 || !S_ISREG(written.st_mode)) return {};
  for (const std::string& input : inputs) {
    struct stat read {};
    if (input.empty() || ::stat(input.c_str(), &read) != 0 || !same_file(written, read)) continue;
    return fail(ErrorCode::invalid_argument, "output {} is the input {}: it would be replaced, give another name",
                output, input);
  }
  return {};
}

}  // namespace chorus

#include "cli/output_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <utility>

#include "json/file_write.h"

namespace chorus {

Result<OutputFile> OutputFile::open(const std::string& path, const std::vector<std::string>& inputs) {
  if (path.empty() || path == "-") return OutputFile(STDOUT_FILENO, "stdout", "");
  struct stat status {};
  const bool there = ::stat(path.c_str(), &status) == 0;
  if (there && S_ISDIR(status.st_mode)) {
    return fail(ErrorCode::invalid_argument, "output {} is a directory: give a file name", path);
  }
  if (there && !S_ISREG(status.st_mode)) {
    const int file = ::open(path.c_str(), O_WRONLY | O_CLOEXEC);
    if (file < 0) return with_context(file_error("open", path, errno), "output cannot be written");
    return OutputFile(file, path, "");
  }
  const std::string partial = path + ".partial";
  for (const std::string& written : {path, partial}) CHORUS_TRY_VOID(refuse_overwriting(written, inputs));
  const auto file = open_locked(partial);
  if (!file.ok()) return with_context(file.error(), "output cannot be written");
  OutputFile output(*file, path, partial);
  if (::ftruncate(*file, 0) != 0) return file_error("ftruncate", partial, errno);
  return output;
}

OutputFile::OutputFile(OutputFile&& other) noexcept
    : file_(std::exchange(other.file_, -1)), path_(std::move(other.path_)), partial_(std::move(other.partial_)) {}

OutputFile::~OutputFile() {
  if (file_ < 0 || file_ == STDOUT_FILENO) return;
  // While it is still locked: it could be another process's a moment later.
  if (!partial_.empty() && is_still_named(file_, partial_)) ::unlink(partial_.c_str());
  ::close(file_);
}

Result<void> OutputFile::write(std::string_view text) {
  return write_all(file_, text, path_);
}

Result<void> OutputFile::commit() {
  if (partial_.empty()) return {};
  if (::fsync(file_) != 0) return file_error("fsync", partial_, errno);
  if (!is_still_named(file_, partial_)) {
    return fail(ErrorCode::unavailable, "{} was removed or replaced while it was written: {} is as it was; run again",
                partial_, path_);
  }
  if (std::rename(partial_.c_str(), path_.c_str()) != 0) return file_error("rename", path_, errno);
  partial_.clear();
  return sync_directory_of(path_);
}

}  // namespace chorus

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
  CHORUS_TRY(OutputFile output, open_to_go_on(path, inputs));
  output.leave(false);
  if (!output.partial_.empty()) CHORUS_TRY_VOID(output.keep_first(0));
  return output;
}

Result<OutputFile> OutputFile::open_to_go_on(const std::string& path, const std::vector<std::string>& inputs) {
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
  output.leave(true);
  return output;
}

OutputFile::OutputFile(OutputFile&& other) noexcept
    : file_(std::exchange(other.file_, -1)),
      path_(std::move(other.path_)),
      partial_(std::move(other.partial_)),
      leaves_(other.leaves_) {}

OutputFile::~OutputFile() {
  if (file_ < 0 || file_ == STDOUT_FILENO) return;
  // While it is still locked: it could be another process's a moment later.
  if (!leaves_ && is_still_there()) ::unlink(partial_.c_str());
  ::close(file_);
}

Result<void> OutputFile::write(std::string_view text) {
  return write_all(file_, text, path_);
}

Result<void> OutputFile::keep_first(std::uint64_t bytes) {
  const auto size = static_cast<off_t>(bytes);
  if (::ftruncate(file_, size) != 0) return file_error("ftruncate", partial_, errno);
  if (::lseek(file_, size, SEEK_SET) < 0) return file_error("lseek", partial_, errno);
  return {};
}

Result<void> OutputFile::sync() {
  if (::fdatasync(file_) != 0) return file_error("fdatasync", partial_, errno);
  return {};
}

bool OutputFile::is_still_there() const {
  return !partial_.empty() && is_still_named(file_, partial_);
}

Result<void> OutputFile::commit() {
  if (partial_.empty()) return {};
  if (::fsync(file_) != 0) return file_error("fsync", partial_, errno);
  if (!is_still_there()) {
    return fail(ErrorCode::unavailable, "{} was removed or replaced while it was written: {} is as it was; run again",
                partial_, path_);
  }
  if (std::rename(partial_.c_str(), path_.c_str()) != 0) return file_error("rename", path_, errno);
  partial_.clear();
  return sync_directory_of(path_);
}

}  // namespace chorus

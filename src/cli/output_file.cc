#include "cli/output_file.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace chorus {

Result<OutputFile> OutputFile::open(const std::string& path) {
  if (path.empty() || path == "-") return OutputFile(stdout, "stdout", "");
  struct stat status {};
  const bool special = ::stat(path.c_str(), &status) == 0 && !S_ISREG(status.st_mode);
  if (special && S_ISDIR(status.st_mode))
    return fail(ErrorCode::invalid_argument, "output {} is a directory: give a file name", path);
  // A device or pipe (/dev/stdout, /dev/full) has no partial form.
  const std::string partial = special ? "" : path + ".partial";
  std::FILE* file = std::fopen(special ? path.c_str() : partial.c_str(), "we");
  if (file == nullptr)
    return fail(ErrorCode::invalid_argument, "output {} cannot be written ({}): give another place", path,
                std::strerror(errno));
  return OutputFile(file, path, partial);
}

OutputFile::OutputFile(OutputFile&& other) noexcept
    : file_(std::exchange(other.file_, nullptr)),
      path_(std::move(other.path_)),
      partial_(std::exchange(other.partial_, "")) {}

OutputFile::~OutputFile() {
  if (file_ == nullptr || file_ == stdout) return;
  std::fclose(file_);
  if (!partial_.empty()) ::unlink(partial_.c_str());
}

Error OutputFile::failed(const char* what) const {
  return fail(ErrorCode::resource_exhausted,
              "cannot {} {} ({}): nothing was left under that name; make room and run again", what, path_,
              std::strerror(errno));
}

Result<void> OutputFile::write(const std::string& text) {
  if (std::fwrite(text.data(), 1, text.size(), file_) != text.size()) return failed("write");
  return {};
}

Result<void> OutputFile::commit() {
  if (std::fflush(file_) != 0) return failed("write");
  if (partial_.empty()) return {};
  if (::fsync(::fileno(file_)) != 0) return failed("sync");
  if (std::fclose(std::exchange(file_, nullptr)) != 0 || std::rename(partial_.c_str(), path_.c_str()) != 0) {
    const Error error = failed("put in place");
    ::unlink(partial_.c_str());
    return error;
  }
  partial_.clear();
  return {};
}

}  // namespace chorus

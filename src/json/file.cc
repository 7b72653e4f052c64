#include "json/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace chorus {
namespace {

constexpr std::size_t spare_padding = 64;
constexpr std::size_t piece_bytes = std::size_t{1} << 16;

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

Error too_large(const std::string& path, std::size_t bytes_max) {
  return fail(ErrorCode::invalid_argument, "{}: larger than the limit of {} bytes", path, bytes_max);
}

}  // namespace

Result<std::string> read_file(const std::string& path, std::size_t bytes_max) {
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (file.get() < 0) {
    const ErrorCode code = errno == ENOENT || errno == ENOTDIR ? ErrorCode::not_found : ErrorCode::invalid_argument;
    return fail(code, "{}: cannot be opened: {}", path, std::strerror(errno));
  }
  struct stat status {};
  if (::fstat(file.get(), &status) != 0) return fail(ErrorCode::internal, "{}: fstat: {}", path, std::strerror(errno));
  if (S_ISDIR(status.st_mode)) return fail(ErrorCode::invalid_argument, "{}: is a directory, not a file", path);
  // A pipe or /dev/stdin has no size: then the limit alone bounds the reading.
  const std::size_t size_expected = S_ISREG(status.st_mode) ? static_cast<std::size_t>(status.st_size) : 0;
  if (size_expected > bytes_max) return too_large(path, bytes_max);

  std::string text;
  text.reserve(size_expected + spare_padding);
  std::size_t size = 0;
  while (true) {
    // One byte more than expected, to see the end of the file; what has no size is read in pieces.
    text.resize(size < size_expected + 1 ? size_expected + 1 : size + piece_bytes);
    const ssize_t got = ::read(file.get(), text.data() + size, text.size() - size);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fail(ErrorCode::internal, "{}: read at byte {}: {}", path, size, std::strerror(errno));
    if (got == 0) break;
    size += static_cast<std::size_t>(got);
    if (size > bytes_max) return too_large(path, bytes_max);
  }
  text.resize(size);
  text.reserve(size + spare_padding);
  return text;
}

Result<std::string> read_text_file(const std::string& path, std::size_t bytes_max) {
  CHORUS_TRY(std::string text, read_file(path, bytes_max));
  if (text.starts_with("\xef\xbb\xbf")) text.erase(0, 3);
  return text;
}

}  // namespace chorus

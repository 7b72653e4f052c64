#include "base/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace chorus {
namespace {

Error system_error(const std::string& path, const char* call) {
  const int error = errno;
  const ErrorCode code = error == ENOENT ? ErrorCode::not_found : ErrorCode::internal;
  return fail(code, "{}: {}: {}", path, call, std::strerror(error));
}

Result<std::pair<std::byte*, std::size_t>> map(int fd, const std::string& path) {
  struct stat status {};
  if (::fstat(fd, &status) != 0) return system_error(path, "fstat");
  if (!S_ISREG(status.st_mode)) return fail(ErrorCode::invalid_argument, "{}: not a regular file", path);
  const auto bytes = static_cast<std::size_t>(status.st_size);
  if (bytes == 0) return std::pair<std::byte*, std::size_t>(nullptr, 0);
  void* data = ::mmap(nullptr, bytes, PROT_READ, MAP_SHARED, fd, 0);
  if (data == MAP_FAILED) return system_error(path, "mmap");
  ::madvise(data, bytes, MADV_WILLNEED);
  return std::pair(static_cast<std::byte*>(data), bytes);
}

}  // namespace

MappedFile::MappedFile(MappedFile&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(data_, size_);
}

Result<MappedFile> MappedFile::open(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);  // non-blocking: a FIFO must not hang us
  if (fd < 0) return system_error(path, "open");
  auto mapped = map(fd, path);
  ::close(fd);
  if (!mapped) return mapped.error();
  MappedFile file;
  file.data_ = mapped->first;
  file.size_ = mapped->second;
  return file;
}

void MappedFile::release(std::size_t begin, std::size_t end) const {
  const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  begin = (begin + page - 1) / page * page;
  end = end / page * page;
  if (begin < end) ::madvise(data_ + begin, end - begin, MADV_DONTNEED);
}

}  // namespace chorus

#include "weights/arena.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "config/node.h"

namespace chorus {
namespace {

constexpr int required_seals = F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

Error system_error(const char* call, std::size_t bytes) {
  const int error = errno;
  const ErrorCode code = error == ENOMEM ? ErrorCode::resource_exhausted : ErrorCode::internal;
  return fail(code, "weight arena of {} bytes: {}: {}", bytes, call, std::strerror(error));
}

// Maps all of `fd` read-only and fills the page tables now. MAP_POPULATE is only advice: a short population costs
// faults later.
Result<std::byte*> map_read_only(int fd, std::size_t bytes) {
  void* data = ::mmap(nullptr, bytes, PROT_READ, MAP_SHARED, fd, 0);
  if (data == MAP_FAILED) return system_error("mmap", bytes);
  ::madvise(data, bytes, MADV_HUGEPAGE);
  ::madvise(data, bytes, MADV_POPULATE_READ);
  return static_cast<std::byte*>(data);
}

}  // namespace

WeightArena::WeightArena(WeightArena&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      fd_(std::exchange(other.fd_, -1)),
      sealed_(std::exchange(other.sealed_, false)) {}

WeightArena& WeightArena::operator=(WeightArena&& other) noexcept {
  if (this != &other) {
    release();
    data_ = std::exchange(other.data_, nullptr);
    size_ = std::exchange(other.size_, 0);
    fd_ = std::exchange(other.fd_, -1);
    sealed_ = std::exchange(other.sealed_, false);
  }
  return *this;
}

WeightArena::~WeightArena() {
  release();
}

void WeightArena::release() {
  if (data_ != nullptr) ::munmap(data_, size_);
  if (fd_ >= 0) ::close(fd_);
  data_ = nullptr;
  fd_ = -1;
}

Result<WeightArena> WeightArena::create(std::size_t bytes) {
  if (bytes == 0) return fail(ErrorCode::invalid_argument, "weight arena of 0 bytes: the model has no weights");
  // Memory behind a memfd is only taken when it is touched, and running out then is a SIGBUS: so refuse beforehand.
  const std::uint64_t available = memory_available_bytes();
  if (bytes > available) {
    return fail(
        ErrorCode::resource_exhausted,
        "the weights need {} bytes of memory and {} are available: use a smaller model or dtype, or free memory", bytes,
        available);
  }
  WeightArena arena;
  arena.size_ = bytes;
  arena.fd_ = ::memfd_create("chorus-weights", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (arena.fd_ < 0) return system_error("memfd_create", bytes);
  if (::ftruncate(arena.fd_, static_cast<off_t>(bytes)) != 0) return system_error("ftruncate", bytes);
  void* data = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, arena.fd_, 0);
  if (data == MAP_FAILED) return system_error("mmap", bytes);
  arena.data_ = static_cast<std::byte*>(data);
  ::madvise(data, bytes, MADV_HUGEPAGE);  // refused where the kernel has none for shared memory: nothing to do then
  return arena;
}

Result<WeightArena> WeightArena::open(int fd) {
  WeightArena arena;
  arena.fd_ = fd;
  const int seals = ::fcntl(fd, F_GET_SEALS);
  if (seals < 0) return fail(ErrorCode::invalid_argument, "weight arena: descriptor {} is no sealable memory file", fd);
  if ((seals & required_seals) != required_seals) {
    return fail(ErrorCode::invalid_argument,
                "weight arena: descriptor {} is not sealed (seals {:#x}, needed {:#x}), so its maker could change it",
                fd, seals, required_seals);
  }
  struct stat status {};
  if (::fstat(fd, &status) != 0) return system_error("fstat", 0);
  if (status.st_size <= 0) return fail(ErrorCode::invalid_argument, "weight arena: descriptor {} is empty", fd);
  CHORUS_TRY(arena.data_, map_read_only(fd, static_cast<std::size_t>(status.st_size)));
  arena.size_ = static_cast<std::size_t>(status.st_size);
  arena.sealed_ = true;
  return arena;
}

Result<void> WeightArena::seal() {
  CHECK(data_ != nullptr && !sealed_, "sealed twice, or nothing to seal");
  // The kernel refuses F_SEAL_WRITE while a writable mapping exists, so this one goes first.
  ::munmap(std::exchange(data_, nullptr), size_);
  if (::fcntl(fd_, F_ADD_SEALS, required_seals) != 0) return system_error("fcntl(F_ADD_SEALS)", size_);
  CHORUS_TRY(data_, map_read_only(fd_, size_));
  sealed_ = true;
  return {};
}

std::byte* WeightArena::writable_data() {
  CHECK(!sealed_, "a sealed arena is read-only");
  return data_;
}

}  // namespace chorus

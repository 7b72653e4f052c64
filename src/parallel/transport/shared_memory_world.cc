#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "parallel/transport/shared_memory.h"
#include "parallel/transport/shared_memory_transport.h"
#include "parallel/transport/transport.h"

namespace chorus {

Result<SharedWorld> SharedWorld::create(int size) {
  if (size < 1 || size > shared_world_ranks_max) {
    return fail(ErrorCode::invalid_argument, "a shared world of {} ranks: from 1 to {} fit on a node", size,
                shared_world_ranks_max);
  }
  const int fd = ::memfd_create("chorus-world", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (fd < 0) return fail(ErrorCode::internal, "shared world: memfd_create: {}", std::strerror(errno));
  auto memory = SharedMemory::create(fd, size);
  if (!memory.ok()) {
    ::close(fd);
    return memory.error();
  }
  return SharedWorld(fd, size, std::move(*memory));
}

Result<SharedWorld> SharedWorld::open(int fd) {
  CHORUS_TRY(auto memory, SharedMemory::open(fd));
  const int size = memory->size();
  return SharedWorld(fd, size, std::move(memory));
}

SharedWorld::SharedWorld(SharedWorld&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)), size_(other.size_), memory_(std::move(other.memory_)) {}

SharedWorld& SharedWorld::operator=(SharedWorld&& other) noexcept {
  std::swap(fd_, other.fd_);
  std::swap(size_, other.size_);
  std::swap(memory_, other.memory_);
  return *this;
}

SharedWorld::~SharedWorld() {
  if (fd_ >= 0) ::close(fd_);
}

Result<std::unique_ptr<Transport>> SharedWorld::join(int rank, int timeout_ms, std::vector<int> names) const {
  return make_shared_transport(memory_, rank, timeout_ms, std::move(names));
}

}  // namespace chorus

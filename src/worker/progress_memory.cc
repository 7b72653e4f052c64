#include "worker/progress_memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace chorus {
namespace {

constexpr int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

}  // namespace

Result<ProgressMemory> ProgressMemory::create() {
  UniqueFd fd(::memfd_create("chorus-progress", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd.valid()) return fail(ErrorCode::internal, "memfd_create: {}", std::strerror(errno));
  if (::ftruncate(fd.get(), sizeof(ProgressPage)) != 0 || ::fcntl(fd.get(), F_ADD_SEALS, seals) != 0) {
    return fail(ErrorCode::internal, "the page of a replica's progress: {}", std::strerror(errno));
  }
  return map(std::move(fd));
}

Result<ProgressMemory> ProgressMemory::open(UniqueFd fd) {
  struct stat status {};
  if (::fstat(fd.get(), &status) != 0 || status.st_size != static_cast<off_t>(sizeof(ProgressPage))) {
    return fail(ErrorCode::invalid_argument, "the memory for the progress has {} bytes, not {}", status.st_size,
                sizeof(ProgressPage));
  }
  return map(std::move(fd));
}

Result<ProgressMemory> ProgressMemory::map(UniqueFd fd) {
  void* const page = ::mmap(nullptr, sizeof(ProgressPage), PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
  if (page == MAP_FAILED) {
    return fail(ErrorCode::internal, "mapping the page of a replica's progress: {}", std::strerror(errno));
  }
  ProgressMemory memory;
  memory.fd_ = std::move(fd);
  memory.progress_ = Progress(std::shared_ptr<ProgressPage>(
      static_cast<ProgressPage*>(page), [](ProgressPage* mapped) { ::munmap(mapped, sizeof(ProgressPage)); }));
  return memory;
}

}  // namespace chorus

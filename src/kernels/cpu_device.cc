#include "kernels/cpu_device.h"

#include <sys/mman.h>

#include <cerrno>
#include <cstring>

namespace chorus {

CpuDevice::~CpuDevice() {
  for (const Mapping& mapping : mappings_) ::munmap(mapping.memory, mapping.bytes);
}

Result<std::byte*> CpuDevice::allocate(std::size_t bytes) {
  void* memory = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) return fail(ErrorCode::resource_exhausted, "{} bytes: {}", bytes, std::strerror(errno));
  mappings_.push_back({memory, bytes});
  return static_cast<std::byte*>(memory);
}

void CpuDevice::copy_in(std::byte* to, const std::byte* from, std::size_t bytes) {
  std::memcpy(to, from, bytes);
}

}  // namespace chorus

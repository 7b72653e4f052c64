#include <cstdlib>
#include <cstring>

#include "kernels/gpu_runtime.h"
#include "simt/simt.h"

namespace chorus::gpu {
namespace {

constexpr std::uint64_t seed = 2;  // of the order in which warps run; changes no bit
constexpr std::size_t emulated_total = std::size_t{1} << 30;

}  // namespace

bool is_real() {
  return false;
}

Result<void> open(int /*index*/, CudaQueue* queue) {
  queue->emulator = new simt::Emulator(seed);
  queue->processors = 4;
  queue->capability = 90;
  queue->shared_bytes_max = 227 * 1024;
  return {};
}

void close(CudaQueue* queue) {
  delete queue->emulator;
}

std::byte* allocate(std::size_t bytes) {
  constexpr std::size_t alignment = 256;
  return static_cast<std::byte*>(std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment));
}

void release(std::byte* memory) {
  std::free(memory);
}

std::byte* allocate_pinned(std::size_t bytes) {
  return allocate(bytes);
}

void release_pinned(std::byte* memory) {
  release(memory);
}

void copy_in(CudaQueue& /*queue*/, std::byte* to, const std::byte* from, std::size_t bytes) {
  std::memcpy(to, from, bytes);
}

void copy_out(CudaQueue& /*queue*/, std::byte* to, const std::byte* from, std::size_t bytes) {
  std::memcpy(to, from, bytes);
}

const char* wait(CudaQueue& queue) {
  return queue.error;
}

Memory memory() {
  return {emulated_total, emulated_total};
}

}  // namespace chorus::gpu

// What a device needs of CUDA's runtime library: gpu_runtime_cuda.cu, or, in a build without CUDA,
// gpu_runtime_emulation.cu, whose GPU is this process's own memory.
#pragma once

#include <cstddef>

#include "base/result.h"
#include "kernels/cuda_queue.h"

namespace chorus::gpu {

// Whether this build computes on GPUs; otherwise what follows is the emulation.
bool is_real();

// Opens GPU `index` of those that CUDA shows this process, counted around, for the calling thread. Errors: none there,
// or one whose tensor cores are not known to sum as the profile says (docs/cuda.md).
Result<void> open(int index, CudaQueue* queue);
void close(CudaQueue* queue);

// nullptr: there is none left.
std::byte* allocate(std::size_t bytes);
void release(std::byte* memory);
// Of the process, for copies that do not wait.
std::byte* allocate_pinned(std::size_t bytes);
void release_pinned(std::byte* memory);

// Queued; the source may be reused on return where it is not pinned.
void copy_in(CudaQueue& queue, std::byte* to, const std::byte* from, std::size_t bytes);
void copy_out(CudaQueue& queue, std::byte* to, const std::byte* from, std::size_t bytes);
// nullptr, or what failed since the process began.
const char* wait(CudaQueue& queue);

struct Memory {
  std::size_t free = 0, total = 0;
};
Memory memory();

}  // namespace chorus::gpu

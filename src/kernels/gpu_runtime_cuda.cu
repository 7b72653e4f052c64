#include "base/check.h"
#include "kernels/cuda_launch.h"
#include "kernels/gpu_runtime.h"
#include "kernels/linear_wgmma.h"

namespace chorus::gpu {
namespace {

constexpr int hopper = 90;

int attribute(cudaDeviceAttr which, int device) {
  int value = 0;
  CHECK(cudaDeviceGetAttribute(&value, which, device) == cudaSuccess, "attribute {}", static_cast<int>(which));
  return value;
}

}  // namespace

bool is_real() {
  return true;
}

Result<void> open(int index, CudaQueue* queue) {
  int count = 0;
  const cudaError_t counted = cudaGetDeviceCount(&count);
  if (counted != cudaSuccess || count == 0) {
    return fail(ErrorCode::unavailable, "--device cuda: {}",
                counted != cudaSuccess ? cudaGetErrorString(counted) : "CUDA shows this process no GPU");
  }
  index %= count;
  cudaError_t opened = cudaSetDevice(index);
  // One that waits for the default stream, where wgmma_agrees() copies.
  if (opened == cudaSuccess) opened = cudaStreamCreate(&queue->stream);
  if (opened != cudaSuccess)
    return fail(ErrorCode::unavailable, "GPU {} does not open: {}", index, cudaGetErrorString(opened));
  queue->processors = attribute(cudaDevAttrMultiProcessorCount, index);
  queue->shared_bytes_max = attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, index);
  queue->capability =
      10 * attribute(cudaDevAttrComputeCapabilityMajor, index) + attribute(cudaDevAttrComputeCapabilityMinor, index);
  if (queue->capability != hopper) {
    return fail(ErrorCode::unavailable,
                "GPU {} is of compute capability {}.{}: the profile cuda-sm90 is known to hold for 9.0 alone; use "
                "--device cpu",
                index, queue->capability / 10, queue->capability % 10);
  }
  queue->wgmma = wgmma_agrees(*queue);
  if (queue->error != nullptr) return fail(ErrorCode::unavailable, "GPU {}: {}", index, queue->error);
  return {};
}

void close(CudaQueue* queue) {
  if (queue->stream != nullptr) cudaStreamDestroy(queue->stream);
}

std::byte* allocate(std::size_t bytes) {
  void* memory = nullptr;
  if (cudaMalloc(&memory, bytes) == cudaSuccess) return static_cast<std::byte*>(memory);
  cudaGetLastError();  // it is told by the null pointer
  return nullptr;
}

void release(std::byte* memory) {
  cudaFree(memory);
}

std::byte* allocate_pinned(std::size_t bytes) {
  void* memory = nullptr;
  if (cudaMallocHost(&memory, bytes) == cudaSuccess) return static_cast<std::byte*>(memory);
  cudaGetLastError();
  return nullptr;
}

void release_pinned(std::byte* memory) {
  cudaFreeHost(memory);
}

void copy_in(CudaQueue& queue, std::byte* to, const std::byte* from, std::size_t bytes) {
  CudaLaunch{queue}.note(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, queue.stream));
}

void copy_out(CudaQueue& queue, std::byte* to, const std::byte* from, std::size_t bytes) {
  CudaLaunch{queue}.note(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, queue.stream));
}

const char* wait(CudaQueue& queue) {
  CudaLaunch{queue}.note(cudaStreamSynchronize(queue.stream));
  return queue.error;
}

Memory memory() {
  Memory memory;
  CHECK(cudaMemGetInfo(&memory.free, &memory.total) == cudaSuccess, "cudaMemGetInfo");
  return memory;
}

}  // namespace chorus::gpu

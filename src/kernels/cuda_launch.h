// Queues a kernel on a stream. For nvcc; private to *_cuda.cu and to the tests of device code.
#pragma once

#include <cuda_runtime.h>

#include "kernels/cuda_queue.h"
#include "simt/shape.h"

namespace chorus {

struct CudaLaunch {
  CudaQueue& queue;

  template <typename... Parameters, typename... Arguments>
  void operator()(const simt::Shape& shape, void (*kernel)(Parameters...), const Arguments&... arguments) const {
    constexpr int shared_bytes_without_asking = 48 * 1024;
    if (shape.shared_bytes > shared_bytes_without_asking) {
      note(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shape.shared_bytes));
    }
    const dim3 blocks(static_cast<unsigned>(shape.x), static_cast<unsigned>(shape.y), static_cast<unsigned>(shape.z));
    kernel<<<blocks, static_cast<unsigned>(shape.threads), static_cast<std::size_t>(shape.shared_bytes),
             queue.stream>>>(arguments...);
    note(cudaGetLastError());
  }
  void note(cudaError_t status) const {
    if (status != cudaSuccess && queue.error == nullptr) queue.error = cudaGetErrorString(status);
  }
};

}  // namespace chorus

// Queues a kernel on a stream, or runs it in the emulation. Private to *_cuda.cu and to the tests of device code.
#pragma once

#include "kernels/cuda_queue.h"
#include "simt/simt.h"

#if defined(__CUDACC__)
#include <cuda_runtime.h>
#endif

namespace chorus {

#if defined(__CUDACC__)
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
#else
struct CudaLaunch {
  CudaQueue& queue;

  template <typename... Parameters, typename... Arguments>
  void operator()(const simt::Shape& shape, void (*kernel)(Parameters...), const Arguments&... arguments) const {
    queue.emulator->launch(shape, kernel, arguments...);
  }
};
#endif

}  // namespace chorus

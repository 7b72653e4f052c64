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
    cudaLaunchConfig_t config{};
    config.gridDim = {static_cast<unsigned>(shape.x), static_cast<unsigned>(shape.y), static_cast<unsigned>(shape.z)};
    config.blockDim = {static_cast<unsigned>(shape.threads)};
    config.dynamicSmemBytes = static_cast<std::size_t>(shape.shared_bytes);
    config.stream = queue.stream;
    cudaLaunchAttribute overlap{};
    overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    overlap.val.programmaticStreamSerializationAllowed = 1;
    config.attrs = &overlap;
    constexpr int with_overlap = 90;  // compute capability
    config.numAttrs = shape.overlaps && queue.capability >= with_overlap ? 1 : 0;
    note(cudaLaunchKernelEx(&config, kernel, arguments...));
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

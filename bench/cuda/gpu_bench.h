// What the parts of gpu_bench share: device memory, timing, a table of results.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <vector>

#include "kernels/cuda_queue.h"

namespace chorus {

inline void require(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  std::printf("%s: %s\n", what, cudaGetErrorString(status));
  std::exit(1);
}

// Device memory until the end of this object.
template <typename T>
class DeviceArray {
 public:
  explicit DeviceArray(std::size_t count) : count_(count) {
    require(cudaMalloc(&data_, count * sizeof(T)), "cudaMalloc");
  }
  explicit DeviceArray(const std::vector<T>& values) : DeviceArray(values.size()) {
    require(cudaMemcpy(data_, values.data(), count_ * sizeof(T), cudaMemcpyHostToDevice), "copy");
  }
  ~DeviceArray() { cudaFree(data_); }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;
  T* data() const { return data_; }
  std::size_t size() const { return count_; }
  std::vector<T> get() const {
    std::vector<T> values(count_);
    require(cudaMemcpy(values.data(), data_, count_ * sizeof(T), cudaMemcpyDeviceToHost), "copy");
    return values;
  }

 private:
  T* data_ = nullptr;
  std::size_t count_ = 0;
};

// Random bfloat16 in [-1, 1), made on the device.
void fill_random(DeviceArray<std::uint16_t>& values, std::uint32_t seed);

struct Bench {
  CudaQueue queue;
  double copy_bytes_per_s = 0;  // read and written, by a copy in this run
  double read_bytes_per_s = 0;  // by a kernel that only reads: what the others are measured against
  // Microseconds of one call: the median of several graphs of `calls` calls, work(i) the i-th of them.
  double microseconds(int calls, const std::function<void(int)>& work);
};

void bench_copy(Bench& bench);
void bench_linear_decode(Bench& bench);
void bench_linear_prefill(Bench& bench);
void bench_attention(Bench& bench);
void bench_rows(Bench& bench);
// Compares the sums of the tensor cores with float32 and with each other; writes samples to `folder`.
void probe_sums(Bench& bench, const char* folder);

}  // namespace chorus

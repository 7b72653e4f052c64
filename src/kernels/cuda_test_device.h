// Where the tests of device code run it: compiled by nvcc on a GPU, else in the emulation, under a seed. The same tests
// in both: see bench/cuda/CMakeLists.txt.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <random>
#include <vector>

#include "simt/simt.h"
#include "tensor/dtype.h"

#if defined(__CUDACC__)
#include "base/check.h"
#include "kernels/cuda_launch.h"
#endif

namespace chorus {

#if defined(__CUDACC__)
class TestDevice {
 public:
  static constexpr bool emulated = false;
  explicit TestDevice(std::uint64_t /*seed*/ = 0) {}
  ~TestDevice() {
    for (void* memory : memory_) cudaFree(memory);
  }
  TestDevice(const TestDevice&) = delete;
  TestDevice& operator=(const TestDevice&) = delete;

  // A copy of the values on the device, until the end of this object.
  template <typename T>
  T* put(const std::vector<T>& values) {
    void* memory = nullptr;
    CHECK(cudaMalloc(&memory, values.size() * sizeof(T)) == cudaSuccess, "cudaMalloc");
    memory_.push_back(memory);
    CHECK(cudaMemcpy(memory, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice) == cudaSuccess, "copy");
    return static_cast<T*>(memory);
  }
  template <typename T>
  std::vector<T> get(const T* from, std::size_t count) {
    std::vector<T> values(count);
    const cudaError_t status = cudaMemcpy(values.data(), from, count * sizeof(T), cudaMemcpyDeviceToHost);
    CHECK(status == cudaSuccess && queue_.error == nullptr, "{} {}", cudaGetErrorString(status),
          queue_.error == nullptr ? "" : queue_.error);
    return values;
  }
  template <typename... Parameters, typename... Arguments>
  void operator()(const simt::Shape& shape, void (*kernel)(Parameters...), const Arguments&... arguments) {
    CudaLaunch launch{queue_};
    launch(shape, kernel, arguments...);
  }

 private:
  CudaQueue queue_;
  std::vector<void*> memory_;
};
#else
class TestDevice {
 public:
  static constexpr bool emulated = true;
  explicit TestDevice(std::uint64_t seed = 2) : emulator_(seed) {}

  template <typename T>
  T* put(const std::vector<T>& values) {
    auto& memory = memory_.emplace_back();
    const std::size_t bytes = values.size() * sizeof(T);
    memory.resize((bytes + 15) / 16 * 16);
    std::memcpy(memory.data(), values.data(), bytes);
    return reinterpret_cast<T*>(memory.data());
  }
  template <typename T>
  std::vector<T> get(const T* from, std::size_t count) {
    return {from, from + count};
  }
  template <typename... Parameters, typename... Arguments>
  void operator()(const simt::Shape& shape, void (*kernel)(Parameters...), const Arguments&... arguments) {
    emulator_.launch(shape, kernel, arguments...);
  }

 private:
  simt::Emulator emulator_;
  std::deque<std::vector<std::byte> > memory_;  // operator new aligns to 16
};
#endif

// Relative error of a float32 sum of n terms by mma_bf16. The emulation rounds to nearest once a term (Higham,
// section 3.1); tensor cores cut the terms of a step off at the largest one's 2^-24 or so and drop what is below:
// docs/cuda.md.
inline double sum_error(std::int64_t terms) {
  const double n = static_cast<double>(terms) + 16;
  return n * (TestDevice::emulated ? 0x1p-24 : 0x1p-23);
}

inline std::vector<Bfloat16> random_bfloat16(std::int64_t count, std::uint32_t seed) {
  std::mt19937 generator(seed);
  std::uniform_real_distribution<float> uniform(-1.0F, 1.0F);
  std::vector<Bfloat16> values(static_cast<std::size_t>(count));
  for (Bfloat16& value : values) value = to_bfloat16(uniform(generator));
  return values;
}

}  // namespace chorus

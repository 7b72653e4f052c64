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

// Whether this device's mma_bf16 has Hopper's bits, which the emulation has.
inline bool sums_as_hopper() {
#if defined(__CUDACC__)
  int major = 0;
  return cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0) == cudaSuccess && major == 9;
#else
  return true;
#endif
}

// FNV-1a, 64 bits, over the bytes of the values.
template <typename T>
std::uint64_t hash_of(const std::vector<T>& values) {
  std::uint64_t hash = 0xcbf29ce484222325U;
  for (std::size_t i = 0; i < values.size() * sizeof(T); ++i) {
    hash = (hash ^ reinterpret_cast<const unsigned char*>(values.data())[i]) * 0x100000001b3U;
  }
  return hash;
}

// Relative error of a sum of n products by mma_bf16, 16 at a time: each step cuts 17 terms off at 2^-25 of a power of
// two that none exceeds fourfold, and the result at 2^-23 (docs/cuda.md); all relative to the sum of magnitudes.
inline double sum_error(std::int64_t terms) {
  return (static_cast<double>(terms) / 16 + 8) * (17 * 0x1p-25 + 0x1p-23);
}

inline std::vector<Bfloat16> random_bfloat16(std::int64_t count, std::uint32_t seed) {
  std::mt19937 generator(seed);
  std::uniform_real_distribution<float> uniform(-1.0F, 1.0F);
  std::vector<Bfloat16> values(static_cast<std::size_t>(count));
  for (Bfloat16& value : values) value = to_bfloat16(uniform(generator));
  return values;
}

}  // namespace chorus

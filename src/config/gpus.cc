#include "config/gpus.h"

#include <dlfcn.h>

#include <cstddef>

namespace chorus {
namespace {

// Of cuda.h (CUDA Driver API, "Device Management"). Nothing here makes a context, which would take a GPU's memory.
constexpr int cuda_success = 0;
constexpr int attribute_major = 75, attribute_minor = 76;

class CudaDriver {
 public:
  // Stays open: the driver may have begun threads of its own.
  CudaDriver() : library_(::dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL)) {}

  int count() const {
    int count = 0;
    const bool counted = call<unsigned>("cuInit", 0U) && call<int*>("cuDeviceGetCount", &count);
    return counted ? count : 0;
  }
  Gpu gpu(int index) const {
    Gpu gpu;
    int device = 0;
    if (!call<int*, int>("cuDeviceGet", &device, index)) return gpu;
    char name[128] = {};
    if (call<char*, int, int>("cuDeviceGetName", name, sizeof name, device)) gpu.name = name;
    std::size_t bytes = 0;
    if (call<std::size_t*, int>("cuDeviceTotalMem_v2", &bytes, device)) gpu.memory_bytes = bytes;
    int major = 0, minor = 0;
    if (call<int*, int, int>("cuDeviceGetAttribute", &major, attribute_major, device) &&
        call<int*, int, int>("cuDeviceGetAttribute", &minor, attribute_minor, device)) {
      gpu.capability = 10 * major + minor;
    }
    return gpu;
  }

 private:
  template <typename... Arguments>
  bool call(const char* name, Arguments... arguments) const {
    if (library_ == nullptr) return false;
    const auto function = reinterpret_cast<int (*)(Arguments...)>(::dlsym(library_, name));
    return function != nullptr && function(arguments...) == cuda_success;
  }

  void* library_;
};

}  // namespace

std::vector<Gpu> detect_gpus() {
  const CudaDriver driver;
  std::vector<Gpu> gpus;
  const int count = driver.count();
  for (int i = 0; i < count; ++i) gpus.push_back(driver.gpu(i));
  return gpus;
}

}  // namespace chorus

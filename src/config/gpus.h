// The GPUs of this machine, as the NVIDIA driver (libcuda.so.1, opened at run time) shows them to this process: what
// CUDA_VISIBLE_DEVICES leaves, in its order. No memory of theirs is taken. A process that asks may start others, but
// not by a fork that goes on in the same program.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace chorus {

struct Gpu {
  std::string name;
  std::uint64_t memory_bytes = 0;
  int capability = 0;  // 10 * major + minor
};

// None where there is no driver.
std::vector<Gpu> detect_gpus();

}  // namespace chorus

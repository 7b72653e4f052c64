// A CPU: the threads of a worker, and the instruction set that its kernels are of.
#pragma once

#include <vector>

#include "kernels/isa.h"
#include "kernels/thread_pool.h"
#include "tensor/device.h"

namespace chorus {

class CpuDevice final : public Device {
 public:
  // `pool` outlives the device.
  CpuDevice(ThreadPool& pool, Isa isa) : Device(DeviceKind::cpu, Scratch()), pool_(pool), isa_(isa) {}
  ~CpuDevice() override;

  ThreadPool& pool() { return pool_; }
  Isa isa() const { return isa_; }

  // Zeros, whose pages come when they are first written: a large KV cache costs nothing until it is used.
  Result<std::byte*> allocate(std::size_t bytes) override;
  void copy_in(std::byte* to, const std::byte* from, std::size_t bytes) override;
  const std::byte* read(const std::byte* from, std::size_t /*bytes*/) override { return from; }
  Result<void> finish() override { return {}; }

 private:
  struct Mapping {
    void* memory;
    std::size_t bytes;
  };
  ThreadPool& pool_;
  Isa isa_;
  std::vector<Mapping> mappings_;
};

// The device, which is one.
inline CpuDevice& cpu_of(Device& device) {
  CHECK(device.kind() == DeviceKind::cpu, "an operation for CPUs alone was asked of a GPU");
  return static_cast<CpuDevice&>(device);
}

}  // namespace chorus

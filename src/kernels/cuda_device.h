// A GPU, or the emulation of one (gpu_runtime.h): its memory, one stream, and memory of the process that copies go
// through.
#pragma once

#include <memory>
#include <vector>

#include "kernels/cuda_queue.h"
#include "tensor/device.h"

namespace chorus {

class CudaDevice final : public Device {
 public:
  // Of those that CUDA shows this process.
  static Result<std::unique_ptr<CudaDevice>> open(int gpu);
  ~CudaDevice() override;

  CudaQueue& queue() { return queue_; }

  Result<std::byte*> allocate(std::size_t bytes) override;
  void copy_in(std::byte* to, const std::byte* from, std::size_t bytes) override;
  const std::byte* read(const std::byte* from, std::size_t bytes) override;
  Result<void> finish() override;

  // `bytes` that the host fills and then sends to the device in one copy: the place there, which stays valid until the
  // next stage(). The one before must be done (finish()).
  struct Stage {
    std::byte* host = nullptr;
    std::byte* device = nullptr;
  };
  Stage stage(std::size_t bytes);
  void send(const Stage& stage, std::size_t bytes);

 private:
  CudaDevice();

  CudaQueue queue_;
  std::vector<std::byte*> memory_;
  Stage stage_;
  std::size_t stage_bytes_ = 0;
  std::byte* returning_ = nullptr;  // pinned: what read() brings
  std::size_t returning_bytes_ = 0;
};

// The device, which is one.
inline CudaDevice& cuda_of(Device& device) {
  CHECK(device.kind() == DeviceKind::cuda, "an operation for GPUs was asked of a CPU");
  return static_cast<CudaDevice&>(device);
}

}  // namespace chorus

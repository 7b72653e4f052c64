// Where tensors live and operations run: a CPU (kernels/cpu_device.h) or a GPU (kernels/cuda_device.h). Operations are
// functions of a device and views (kernels/ops.h); what is queued on one device runs in that order. docs/decisions/019.
#pragma once

#include <cstddef>

#include "base/result.h"
#include "tensor/scratch.h"
#include "tensor/view.h"

namespace chorus {

// Used by one thread at a time.
class Device {
 public:
  Device(DeviceKind kind, Scratch scratch) : kind_(kind), scratch_(std::move(scratch)) {}
  virtual ~Device() = default;
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  DeviceKind kind() const { return kind_; }
  // What matrix products and attention read: float32, or what the GPU's tensor cores take.
  DType product_dtype() const { return kind_ == DeviceKind::cpu ? DType::float32 : DType::bfloat16; }

  // Memory for as long as the device: weights, KV caches. Errors: resource_exhausted.
  virtual Result<std::byte*> allocate(std::size_t bytes) = 0;
  // From this process's memory, which may be reused on return, to the device's: after what was queued and before what
  // will be.
  virtual void copy_in(std::byte* to, const std::byte* from, std::size_t bytes) = 0;
  // Waits for what was queued. `bytes` of the device's memory where this process can read them, until the next call.
  virtual const std::byte* read(const std::byte* from, std::size_t bytes) = 0;
  // Waits until all that was queued is done. Errors: of anything queued since the last call; the device is then
  // useless.
  virtual Result<void> finish() = 0;

  // The device's memory for intermediate results of a step.
  Scratch& scratch() { return scratch_; }
  // [rows, columns] of it, contiguous and uninitialised, in the enclosing Scratch::Scope.
  View take(DType dtype, std::int64_t rows, std::int64_t columns) {
    std::byte* data = scratch_.take(static_cast<std::size_t>(rows * columns) * bytes_of(dtype));
    return {data, dtype, rows, columns, columns, kind_};
  }

 private:
  DeviceKind kind_;
  Scratch scratch_;
};

}  // namespace chorus

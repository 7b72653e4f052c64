#include "kernels/cuda_device.h"

#include <algorithm>
#include <bit>

#include "base/check.h"
#include "kernels/gpu_runtime.h"

namespace chorus {
namespace {

constexpr std::size_t pinned_bytes_min = std::size_t{1} << 16;

}  // namespace

CudaDevice::CudaDevice()
    : Device(DeviceKind::cuda, Scratch([this](std::size_t bytes) {
               auto memory = allocate(bytes);
               CHECK(memory.ok(), "intermediate results: {}", memory.error().message);
               return *memory;
             })) {}

Result<std::unique_ptr<CudaDevice>> CudaDevice::open(int gpu) {
  std::unique_ptr<CudaDevice> device(new CudaDevice());
  CHORUS_TRY_VOID(gpu::open(gpu, &device->queue_));
  return device;
}

CudaDevice::~CudaDevice() {
  for (std::byte* memory : memory_) gpu::release(memory);
  gpu::release(stage_.device);
  gpu::release_pinned(stage_.host);
  gpu::release_pinned(returning_);
  gpu::close(&queue_);
}

Result<std::byte*> CudaDevice::allocate(std::size_t bytes) {
  std::byte* memory = gpu::allocate(bytes);
  if (memory == nullptr) {
    const gpu::Memory left = gpu::memory();
    return fail(ErrorCode::resource_exhausted, "{} bytes of GPU memory: {} of {} are free", bytes, left.free,
                left.total);
  }
  memory_.push_back(memory);
  return memory;
}

void CudaDevice::copy_in(std::byte* to, const std::byte* from, std::size_t bytes) {
  gpu::copy_in(queue_, to, from, bytes);
}

const std::byte* CudaDevice::read(const std::byte* from, std::size_t bytes) {
  if (bytes > returning_bytes_) {
    gpu::release_pinned(returning_);
    returning_bytes_ = std::bit_ceil(std::max(bytes, pinned_bytes_min));
    returning_ = gpu::allocate_pinned(returning_bytes_);
    CHECK(returning_ != nullptr, "no {} bytes of pinned memory", returning_bytes_);
  }
  gpu::copy_out(queue_, returning_, from, bytes);
  gpu::wait(queue_);  // an error is finish()'s to tell
  return returning_;
}

Result<void> CudaDevice::finish() {
  const char* error = gpu::wait(queue_);
  if (error != nullptr) return fail(ErrorCode::internal, "CUDA: {}", error);
  return {};
}

CudaDevice::Stage CudaDevice::stage(std::size_t bytes) {
  if (bytes <= stage_bytes_) return stage_;
  gpu::release(stage_.device);
  gpu::release_pinned(stage_.host);
  stage_bytes_ = std::bit_ceil(std::max(bytes, pinned_bytes_min));
  stage_ = {gpu::allocate_pinned(stage_bytes_), gpu::allocate(stage_bytes_)};
  CHECK(stage_.host != nullptr && stage_.device != nullptr, "no {} bytes for a step's input", stage_bytes_);
  return stage_;
}

void CudaDevice::send(const Stage& stage, std::size_t bytes) {
  gpu::copy_in(queue_, stage.device, stage.host, bytes);
}

}  // namespace chorus

// A library that CUDA loads into each process of a program and that writes what its GPU does:
// CUDA_INJECTION64_PATH=libgpu_trace.so CHORUS_GPU_TRACE=FILE chorus ... writes FILE.PID, a line for each kernel or
// copy: begin and end in ns, mangled name (or copy and its kind), blocks in x, y, z and threads (or bytes).
// tools/gpu_trace.py reads it. Source: NVIDIA CUPTI's documentation, "CUPTI Activity API".
#include <cupti.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

namespace {

constexpr std::size_t buffer_bytes = 8U << 20;

std::FILE* file() {
  static std::FILE* const opened =
      std::fopen(fmt::format("{}.{}", std::getenv("CHORUS_GPU_TRACE"), ::getpid()).c_str(), "w");
  return opened;
}

void give_buffer(std::uint8_t** buffer, std::size_t* bytes, std::size_t* records_max) {
  *buffer = static_cast<std::uint8_t*>(std::aligned_alloc(8, buffer_bytes));
  *bytes = buffer_bytes;
  *records_max = 0;
}

void write_record(const CUpti_Activity* record, std::FILE* out) {
  if (record->kind == CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL) {
    const auto* kernel = reinterpret_cast<const CUpti_ActivityKernel9*>(record);
    fmt::print(out, "{} {} {} {} {} {} {}\n", kernel->start, kernel->end, kernel->name, kernel->gridX, kernel->gridY,
               kernel->gridZ, kernel->blockX);
  } else if (record->kind == CUPTI_ACTIVITY_KIND_MEMCPY) {
    const auto* copy = reinterpret_cast<const CUpti_ActivityMemcpy5*>(record);
    fmt::print(out, "{} {} copy{} {} 0 0 0\n", copy->start, copy->end, static_cast<int>(copy->copyKind), copy->bytes);
  }
}

void take_buffer(CUcontext /*context*/, std::uint32_t /*stream*/, std::uint8_t* buffer, std::size_t /*bytes*/,
                 std::size_t valid) {
  std::FILE* const out = file();
  CUpti_Activity* record = nullptr;
  while (out != nullptr && cuptiActivityGetNextRecord(buffer, valid, &record) == CUPTI_SUCCESS)
    write_record(record, out);
  if (out != nullptr) std::fflush(out);
  std::free(buffer);
}

}  // namespace

extern "C" int InitializeInjection() {  // NOLINT(readability-identifier-naming): the name that CUDA calls
  constexpr int flush_period_ms = 100;  // a process that is killed leaves all but its last moments
  if (std::getenv("CHORUS_GPU_TRACE") == nullptr) return 1;
  if (file() == nullptr)
    fmt::print(stderr, "gpu_trace: {}.{} cannot be written\n", std::getenv("CHORUS_GPU_TRACE"), ::getpid());
  cuptiActivityRegisterCallbacks(give_buffer, take_buffer);
  cuptiActivityEnable(CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL);
  cuptiActivityEnable(CUPTI_ACTIVITY_KIND_MEMCPY);
  cuptiActivityFlushPeriod(flush_period_ms);
  std::atexit([] { cuptiActivityFlushAll(CUPTI_ACTIVITY_FLAG_FLUSH_FORCED); });
  return 1;
}

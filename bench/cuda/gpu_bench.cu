// gpu_bench [FOLDER [PART...]] -- measures the device kernels on the card at hand; docs/cuda.md has the results.
#include "gpu_bench.h"

#include <cstring>
#include <string>

#include "kernels/linear_wgmma.h"

namespace chorus {
namespace {

void use_wgmma(CudaQueue& queue) {
  queue.wgmma = wgmma_agrees(queue);
  std::printf("wgmma gives the bits of mma.sync in whole products: %s%s%s\n", queue.wgmma ? "yes" : "no",
              queue.error == nullptr ? "" : ": ", queue.error == nullptr ? "" : queue.error);
  queue.error = nullptr;
}

__global__ void fill(std::uint16_t* values, std::size_t count, std::uint32_t seed) {
  const std::size_t stride = std::size_t{gridDim.x} * blockDim.x;
  for (std::size_t i = std::size_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count; i += stride) {
    std::uint64_t z = (i + 1) * 0x9e3779b97f4a7c15U + seed;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
    const float value = static_cast<float>(static_cast<std::int32_t>(z >> 32)) * 0x1p-31F;
    values[i] = static_cast<std::uint16_t>(__float_as_uint(value) >> 16);
  }
}

// Adds up bits, so that nothing but reading takes time.
__global__ void read(const uint4* values, std::size_t count, unsigned* out) {
  const std::size_t stride = std::size_t{gridDim.x} * blockDim.x;
  unsigned sum = 0;
  std::size_t i = std::size_t{blockIdx.x} * blockDim.x + threadIdx.x;
  for (; i + 3 * stride < count; i += 4 * stride) {
    const uint4 a = values[i], b = values[i + stride], c = values[i + 2 * stride], d = values[i + 3 * stride];
    sum += (a.x ^ a.y ^ a.z ^ a.w) + (b.x ^ b.y ^ b.z ^ b.w) + (c.x ^ c.y ^ c.z ^ c.w) + (d.x ^ d.y ^ d.z ^ d.w);
  }
  if (sum == 12345) *out = sum;
}

}  // namespace

void fill_random(DeviceArray<std::uint16_t>& values, std::uint32_t seed) {
  fill<<<1024, 256>>>(values.data(), values.size(), seed);
  require(cudaDeviceSynchronize(), "fill");
}

double Bench::microseconds(int calls, const std::function<void(int)>& work) {
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t exec = nullptr;
  cudaEvent_t begin, end;
  require(cudaEventCreate(&begin), "event");
  require(cudaEventCreate(&end), "event");
  require(cudaStreamBeginCapture(queue.stream, cudaStreamCaptureModeGlobal), "capture");
  for (int i = 0; i < calls; ++i) work(i);
  require(cudaStreamEndCapture(queue.stream, &graph), "capture");
  require(cudaGraphInstantiate(&exec, graph, 0), "graph");
  std::vector<float> times;
  for (int round = 0; round < 8; ++round) {
    require(cudaEventRecord(begin, queue.stream), "record");
    require(cudaGraphLaunch(exec, queue.stream), "graph");
    require(cudaEventRecord(end, queue.stream), "record");
    require(cudaEventSynchronize(end), "wait");
    float milliseconds = 0;
    require(cudaEventElapsedTime(&milliseconds, begin, end), "time");
    if (round > 0) times.push_back(milliseconds);
  }
  if (queue.error != nullptr) std::printf("launch: %s\n", queue.error);
  queue.error = nullptr;
  cudaGraphExecDestroy(exec);
  cudaGraphDestroy(graph);
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  std::nth_element(times.begin(), times.begin() + 3, times.end());
  return double{times[3]} * 1e3 / calls;
}

void bench_copy(Bench& bench) {
  DeviceArray<std::uint16_t> from(std::size_t{1} << 30), to(std::size_t{1} << 30);
  fill_random(from, 1);
  const double us = bench.microseconds(2, [&](int) {
    require(cudaMemcpyAsync(to.data(), from.data(), from.size() * 2, cudaMemcpyDeviceToDevice, bench.queue.stream),
            "copy");
  });
  bench.copy_bytes_per_s = 2.0 * 2.0 * static_cast<double>(from.size()) / us * 1e6;
  const int blocks = bench.queue.processors * 8;
  const double read_us = bench.microseconds(2, [&](int) {
    read<<<blocks, 256, 0, bench.queue.stream>>>(reinterpret_cast<const uint4*>(from.data()), from.size() / 8,
                                                 reinterpret_cast<unsigned*>(to.data()));
  });
  bench.read_bytes_per_s = 2.0 * static_cast<double>(from.size()) / read_us * 1e6;
  std::printf("2 GiB on the device: copy %.0f GB/s read and written, read %.0f GB/s\n", bench.copy_bytes_per_s / 1e9,
              bench.read_bytes_per_s / 1e9);
}

}  // namespace chorus

int main(int count, char** values) {
  using namespace chorus;
  cudaDeviceProp device{};
  require(cudaGetDeviceProperties(&device, 0), "device");
  std::printf("%s, compute capability %d.%d, %d multiprocessors, L2 %d MB\n", device.name, device.major, device.minor,
              device.multiProcessorCount, device.l2CacheSize >> 20);
  Bench bench;
  bench.queue.processors = device.multiProcessorCount;
  bench.queue.shared_bytes_max = static_cast<int>(device.sharedMemPerBlockOptin);
  bench.queue.capability = device.major * 10 + device.minor;
  require(cudaStreamCreate(&bench.queue.stream), "stream");
  const char* folder = count > 1 ? values[1] : ".";
  const auto wanted = [&](const char* part) {
    for (int i = 2; i < count; ++i) {
      if (std::strcmp(values[i], part) == 0) return true;
    }
    return count < 3;
  };
  use_wgmma(bench.queue);
  bench_copy(bench);
  if (wanted("probe")) probe_sums(bench, folder);
  if (wanted("decode")) bench_linear_decode(bench);
  if (wanted("attention")) bench_attention(bench);
  if (wanted("rows")) bench_rows(bench);
  if (wanted("prefill")) bench_linear_prefill(bench);
  return 0;
}

// The matrices of Llama-3-8B: few rows against the bandwidth of a copy, many against cuBLAS.
#include <dlfcn.h>

#include <array>
#include <memory>
#include <string>

#include "gpu_bench.h"
#include "kernels/cuda_launch.h"
#include "kernels/linear_cuda_impl.h"
#include "kernels/linear_wgmma.h"

namespace chorus {
namespace {

struct Matrix {
  const char* name;
  std::int32_t rows, columns, segments;
  double count;  // in the model
};
constexpr std::array<Matrix, 5> matrices = {{{"qkv", 6144, 4096, 1, 32},
                                             {"o", 4096, 4096, 8, 32},
                                             {"gate-up", 28672, 4096, 1, 32},
                                             {"down", 4096, 14336, 8, 32},
                                             {"head", 128256, 4096, 1, 1}}};

CudaLinear call_of(const Matrix& matrix, std::int32_t m, const std::uint16_t* x, const std::uint16_t* w, void* y) {
  CudaLinear call{x, matrix.columns, m, w, matrix.rows, matrix.columns, matrix.segments};
  call.y = y;
  call.ldy = matrix.rows;
  call.output = CudaLinearOutput::round;
  return call;
}

// Several copies of W, so that none is in the cache when its turn comes.
struct Weights {
  const Matrix& matrix;
  int copies;
  DeviceArray<std::uint16_t> values;

  explicit Weights(const Matrix& matrix)
      : matrix(matrix),
        copies(std::max(
            2, static_cast<int>((std::int64_t{800} << 20) / (std::int64_t{2} * matrix.rows * matrix.columns)))),
        values(static_cast<std::size_t>(copies) * matrix.rows * matrix.columns) {
    fill_random(values, 3);
  }
  const std::uint16_t* copy(int i) const {
    return values.data() + static_cast<std::size_t>(i % copies) * matrix.rows * matrix.columns;
  }
  double bytes() const { return 2.0 * matrix.rows * matrix.columns; }
};

using Ways = std::vector<std::pair<const char*, std::function<void(const CudaLinear&)>>>;

// Other cuts of the same kernel, to choose from.
Ways stream_ways(Bench& bench, int segments) {
  const auto way = [&bench]<typename Shape>(Shape) {
    return [&bench](const CudaLinear& call) {
      CudaLaunch launch{bench.queue};
      cuda::launch_stream<Shape>(launch, call, {bench.queue.processors, bench.queue.shared_bytes_max});
    };
  };
  if (segments == 8) {
    return {{"8 segments, 32 rows, 64 x 4", way(cuda::StreamShape<1, 8, 4, 64, 4>{})},
            {"8 segments, 16 rows, 128 x 2", way(cuda::StreamShape<1, 8, 2, 128, 2>{})}};
  }
  return {{"64 rows, 256 x 5", way(cuda::StreamShape<1, 1, 1, 256, 5>{})},
          {"128 rows, 256 x 2", way(cuda::StreamShape<1, 1, 2, 256, 2>{})}};
}

double time_decode(Bench& bench, const Weights& weights, std::int32_t m,
                   const std::function<void(const CudaLinear&)>& run) {
  DeviceArray<std::uint16_t> x(static_cast<std::size_t>(m) * weights.matrix.columns),
      y(static_cast<std::size_t>(m) * weights.matrix.rows);
  fill_random(x, 5);
  return bench.microseconds(std::max(2 * weights.copies, 8),
                            [&](int i) { run(call_of(weights.matrix, m, x.data(), weights.copy(i), y.data())); });
}

// cublasGemmEx, opened at run time: the program is static and runs without it.
class Cublas {
 public:
  explicit Cublas(cudaStream_t stream) {
    void* library = dlopen("libcublas.so.13", RTLD_NOW);
    if (library == nullptr) return;
    const auto create = reinterpret_cast<int (*)(void**)>(dlsym(library, "cublasCreate_v2"));
    const auto set_stream = reinterpret_cast<int (*)(void*, cudaStream_t)>(dlsym(library, "cublasSetStream_v2"));
    const auto set_workspace =
        reinterpret_cast<int (*)(void*, void*, std::size_t)>(dlsym(library, "cublasSetWorkspace_v2"));
    gemm_ = reinterpret_cast<Gemm>(dlsym(library, "cublasGemmEx"));
    if (create(&handle_) != 0 || set_stream(handle_, stream) != 0) gemm_ = nullptr;
    if (gemm_ != nullptr) set_workspace(handle_, workspace_.data(), workspace_.size());
  }
  bool there() const { return gemm_ != nullptr; }
  // y = x W^T, bfloat16. Column-major, as cuBLAS counts: y^T = W^T^T x^T.
  void multiply(const CudaLinear& call) const {
    constexpr int transposed = 1, plain = 0, bfloat16 = 14, sums_in_float32 = 68, any = -1;
    const float one = 1, zero = 0;
    const int status =
        gemm_(handle_, transposed, plain, call.rows, call.m, call.columns, &one, call.w, bfloat16, call.columns, call.x,
              bfloat16, call.columns, &zero, call.y, bfloat16, call.rows, sums_in_float32, any);
    if (status != 0) std::printf("cublasGemmEx: %d\n", status);
  }

 private:
  using Gemm = int (*)(void*, int, int, int, int, int, const void*, const void*, int, int, const void*, int, int,
                       const void*, void*, int, int, int, int);
  Gemm gemm_ = nullptr;
  void* handle_ = nullptr;
  DeviceArray<char> workspace_{std::size_t{64} << 20};
};

template <typename Tiles>
auto tiled(Bench& bench) {
  return [&bench](const CudaLinear& call) {
    CudaLaunch launch{bench.queue};
    cuda::launch_tiled<Tiles>(launch, call);
  };
}

void report_prefill(Bench& bench, const Matrix& matrix, std::int32_t m, const Ways& ways, double cublas_us) {
  const double operations = 2.0 * m * matrix.rows * matrix.columns;
  Weights weights(matrix);
  DeviceArray<std::uint16_t> x(static_cast<std::size_t>(m) * matrix.columns),
      y(static_cast<std::size_t>(m) * matrix.rows);
  fill_random(x, 5);
  for (const auto& [name, run] : ways) {
    const double us =
        bench.microseconds(2, [&](int i) { run(call_of(matrix, m, x.data(), weights.copy(i), y.data())); });
    const double us_cublas = name == std::string("cuBLAS") ? us : cublas_us;
    std::printf("%-8s m %5d %-34s %9.1f us %6.1f TFLOP/s", matrix.name, m, name, us, operations / us / 1e6);
    std::printf(us_cublas > 0 ? "  %3.0f %% of cuBLAS\n" : "\n", us_cublas / us * 100);
    cublas_us = us_cublas;
  }
}

}  // namespace

void bench_linear_decode(Bench& bench) {
  for (const std::int32_t m : {1, 8, 16, 32, 64}) {
    double total_us = 0, total_bytes = 0;
    for (const Matrix& matrix : matrices) {
      const Weights weights(matrix);
      const double us = time_decode(bench, weights, m, [&](const CudaLinear& call) { linear_cuda(bench.queue, call); });
      total_us += us * matrix.count;
      total_bytes += weights.bytes() * matrix.count;
      std::printf("%-8s m %2d as planned %24.1f us %6.0f GB/s %4.0f %% of reading\n", matrix.name, m, us,
                  weights.bytes() / us / 1e3, weights.bytes() / us * 1e8 / bench.read_bytes_per_s);
      if (m != 1) continue;
      for (const auto& [name, run] : stream_ways(bench, matrix.segments)) {
        const double other_us = time_decode(bench, weights, m, run);
        std::printf("%-8s m %2d   %-32s %6.1f us %6.0f GB/s %4.0f %%\n", matrix.name, m, name, other_us,
                    weights.bytes() / other_us / 1e3, weights.bytes() / other_us * 1e8 / bench.read_bytes_per_s);
      }
    }
    std::printf("all      m %2d %36.1f us %6.0f GB/s %4.0f %% of reading\n", m, total_us, total_bytes / total_us / 1e3,
                total_bytes / total_us * 1e8 / bench.read_bytes_per_s);
  }
}

void bench_linear_prefill(Bench& bench) {
  const Cublas cublas(bench.queue.stream);
  Ways ways;
  if (cublas.there()) {
    ways.emplace_back("cuBLAS", [&](const CudaLinear& call) { cublas.multiply(call); });
  } else {
    std::printf("no libcublas.so.13: %s\n", dlerror());
  }
  ways.emplace_back("as planned", [&](const CudaLinear& call) { linear_cuda(bench.queue, call); });
  ways.emplace_back("mma 128 x 128", tiled<cuda::TiledMedium>(bench));
  ways.emplace_back("mma 64 x 64", tiled<cuda::TiledSmall>(bench));
  if (bench.queue.capability == 90) {
    ways.emplace_back("wgmma", [&](const CudaLinear& call) { linear_wgmma(bench.queue, call); });
  }
  for (const std::int32_t m : {64, 128, 256, 512, 2048, 16384}) {
    for (const Matrix& matrix : matrices) {
      if (matrix.rows < 100000) report_prefill(bench, matrix, m, ways, 0);
    }
  }
}

}  // namespace chorus

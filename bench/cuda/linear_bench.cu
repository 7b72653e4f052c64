// The matrices of Llama-3-8B: few rows against the fastest reading, many against cuBLAS.
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
  double count;             // in the model
  CudaLinearOutput output;  // in the engine, where there are many rows
};
constexpr std::array<Matrix, 5> matrices = {{{"qkv", 6144, 4096, 1, 32, CudaLinearOutput::store},
                                             {"o", 4096, 4096, 8, 32, CudaLinearOutput::accumulate},
                                             {"gate-up", 28672, 4096, 1, 32, CudaLinearOutput::gate},
                                             {"down", 4096, 14336, 8, 32, CudaLinearOutput::accumulate},
                                             {"head", 128256, 4096, 1, 1, CudaLinearOutput::store}}};

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
    return {{"2 ways, 32 rows, 256 x 3", way(cuda::StreamShape<1, 8, 2, 2, 256, 3>{})},
            {"2 ways, 32 rows, 128 x 8", way(cuda::StreamShape<1, 8, 2, 2, 128, 8>{})}};
  }
  return {{"64 rows, 256 x 4", way(cuda::StreamShape<1, 1, 1, 4, 256, 4>{})},
          {"128 rows, 128 x 5", way(cuda::StreamShape<1, 1, 1, 8, 128, 5>{})}};
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

const char* name_of(CudaLinearOutput output) {
  switch (output) {
    case CudaLinearOutput::store:
      return "to float32";
    case CudaLinearOutput::accumulate:
      return "into float32";
    case CudaLinearOutput::round:
      return "to bfloat16";
    case CudaLinearOutput::gate:
      return "gated";
    case CudaLinearOutput::gelu_gate:
      return "gated by gelu";
  }
  return "";
}

// The products of one matrix with m rows.
struct Prefill {
  Bench& bench;
  const Matrix& matrix;
  std::int32_t m;
  Weights weights{matrix};
  DeviceArray<std::uint16_t> x{static_cast<std::size_t>(m) * matrix.columns};
  DeviceArray<std::uint16_t> y{static_cast<std::size_t>(m) * matrix.rows * 2};

  Prefill(Bench& bench, const Matrix& matrix, std::int32_t m) : bench(bench), matrix(matrix), m(m) {
    fill_random(x, 5);
    fill_random(y, 7);  // finite as float32, too
  }
  // Microseconds; printed beside cuBLAS's, unless these are unknown (0).
  double report(const char* name, CudaLinearOutput output, const std::function<void(const CudaLinear&)>& run,
                double cublas_us) const {
    // Where W is most of the bytes, none of it may be in the cache.
    const int calls = m <= 512 ? std::max(2 * weights.copies, 8) : 2;
    const double us = bench.microseconds(calls, [&](int i) {
      CudaLinear call = call_of(matrix, m, x.data(), weights.copy(i), y.data());
      call.output = output;
      if (output == CudaLinearOutput::gate) call.ldy = matrix.rows / 2;
      run(call);
    });
    const double operations = 2.0 * m * matrix.rows * matrix.columns;
    std::printf("%-8s m %5d %-28s %-13s %9.1f us %6.1f TFLOP/s", matrix.name, m, name, name_of(output), us,
                operations / us / 1e6);
    std::printf(cublas_us > 0 ? "  %3.0f %% of cuBLAS\n" : "\n", cublas_us / us * 100);
    return us;
  }
};

// Prints all ways of one product; returns microseconds of cuBLAS (0: not there) and of the engine.
std::pair<double, double> report_prefill(Bench& bench, const Matrix& matrix, std::int32_t m, const Cublas& cublas) {
  constexpr auto rounded = CudaLinearOutput::round;
  const Prefill prefill(bench, matrix, m);
  double cublas_us = 0;
  if (cublas.there()) {
    cublas_us = prefill.report(
        "cuBLAS", rounded, [&](const CudaLinear& call) { cublas.multiply(call); }, 0);
  }
  const auto planned = [&](const CudaLinear& call) { linear_cuda(bench.queue, call); };
  const double us = prefill.report("as planned", matrix.output, planned, cublas_us);
  prefill.report("as planned", rounded, planned, cublas_us);
  if (m > 512 && m < 16384) return {cublas_us, us};
  if (bench.queue.capability == 90) {
    for (const WgmmaWay& way : wgmma_ways()) {
      if (!way.can(matrix.segments)) continue;
      prefill.report(
          way.name, rounded, [&](const CudaLinear& call) { way.queue(bench.queue, call); }, cublas_us);
    }
  }
  if (m <= 256) {
    prefill.report("mma 128 x 128", rounded, tiled<cuda::TiledMedium>(bench), cublas_us);
    prefill.report("mma 64 x 64", rounded, tiled<cuda::TiledSmall>(bench), cublas_us);
  }
  return {cublas_us, us};
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
  if (!cublas.there()) std::printf("no libcublas.so.13: %s\n", dlerror());
  for (const std::int32_t m : {33, 64, 128, 193, 256, 512, 1024, 2048, 16384}) {
    double cublas_us = 0, us = 0;
    for (const Matrix& matrix : matrices) {
      if (matrix.rows > 100000) continue;
      const auto [of_cublas, of_engine] = report_prefill(bench, matrix, m, cublas);
      cublas_us += of_cublas;
      us += of_engine;
    }
    std::printf("a layer  m %5d as the engine does it %18.1f us, cuBLAS %.1f us: %.0f %%\n", m, us, cublas_us,
                cublas_us / us * 100);
  }
}

}  // namespace chorus

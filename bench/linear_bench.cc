// linear() on the shapes of Qwen2.5-0.5B against the limits of the machine: the read bandwidth of a plain sum, and the
// peak of a loop of multiply-adds in registers. Two threads unless CHORUS_BENCH_THREADS says otherwise.
//   cmake --preset release -DCHORUS_BENCH=ON && ninja -C build linear_bench && build/bench/linear_bench
#include <benchmark/benchmark.h>

#include <cstdlib>
#include <random>
#include <vector>

#include "kernels/isa.h"
#include "kernels/linear.h"
#include "kernels/thread_pool.h"
#include "tensor/scratch.h"

namespace chorus {
namespace {

int thread_count() {
  const char* text = std::getenv("CHORUS_BENCH_THREADS");
  return text != nullptr ? std::atoi(text) : 2;
}

struct Aligned {
  explicit Aligned(std::size_t bytes) : data(static_cast<std::byte*>(std::aligned_alloc(64, (bytes + 63) / 64 * 64))) {}
  ~Aligned() { std::free(data); }
  Aligned(const Aligned&) = delete;
  Aligned& operator=(const Aligned&) = delete;
  std::byte* data;
};

// Every layer has its own weights, so a model's weights come from memory: as many copies as make 256 MiB, in turn.
constexpr std::size_t cold_bytes = std::size_t{256} << 20;

void linear_rows(benchmark::State& state, Isa isa, LinearShape shape) {
  const std::int64_t m = state.range(0);
  const std::size_t bytes = packed_linear_bytes(isa, DType::bfloat16, shape), copies = 1 + cold_bytes / bytes;
  Aligned weights(bytes * copies);
  std::vector<Bfloat16> row(static_cast<std::size_t>(shape.columns), to_bfloat16(0.01F));
  const RowSource source = [](const void* context, std::int64_t) {
    return SourceRows{static_cast<const std::byte*>(context), DType::bfloat16, 0};
  };
  ThreadPool pool(thread_count());
  for (std::size_t copy = 0; copy < copies; ++copy) {
    const std::int64_t rows = linear_panel_rows(isa, DType::bfloat16);
    pool.for_range((shape.rows + rows - 1) / rows, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t panel = begin; panel < end; ++panel) {
        pack_linear_panel(isa, DType::bfloat16, shape, panel, source, row.data(), weights.data + copy * bytes);
      }
    });
  }
  std::vector<float> x(static_cast<std::size_t>(m * shape.columns), 0.5F), y(static_cast<std::size_t>(m * shape.rows));
  Scratch scratch;
  std::size_t copy = 0;
  for (auto _ : state) {
    linear(pool, scratch, {shape, DType::bfloat16, isa, weights.data + copy * bytes}, {x.data(), m, shape.columns},
           y.data(), shape.rows);
    benchmark::ClobberMemory();
    copy = (copy + 1) % copies;
  }
  const double calls = static_cast<double>(state.iterations());
  state.counters["GB/s"] = benchmark::Counter(calls * static_cast<double>(bytes) / 1e9, benchmark::Counter::kIsRate);
  state.counters["GFLOP/s"] = benchmark::Counter(calls * 2e-9 * static_cast<double>(m * shape.rows * shape.columns),
                                                 benchmark::Counter::kIsRate);
}

// 16 floats (GCC and Clang lower it to what the processor has).
using Vector [[gnu::vector_size(64)]] = float;
using Words [[gnu::vector_size(64)]] = std::uint32_t;

[[gnu::target("avx512f")]] void sum_words(const std::byte* data, std::size_t bytes) {
  Words sum[4] = {};
  for (std::size_t at = 0; at < bytes; at += 256) {
    for (std::size_t i = 0; i < 4; ++i) sum[i] += *reinterpret_cast<const Words*>(data + at + i * 64);
  }
  Words total = sum[0] + sum[1] + sum[2] + sum[3];
  benchmark::DoNotOptimize(total);
}

void read_bandwidth(benchmark::State& state) {
  Aligned data(cold_bytes);
  std::fill_n(data.data, cold_bytes, std::byte{1});
  ThreadPool pool(thread_count());
  for (auto _ : state) {
    pool.for_range(static_cast<std::int64_t>(cold_bytes / 4096), [&](std::int64_t begin, std::int64_t end) {
      sum_words(data.data + begin * 4096, static_cast<std::size_t>(end - begin) * 4096);
    });
  }
  state.counters["GB/s"] = benchmark::Counter(
      static_cast<double>(state.iterations()) * static_cast<double>(cold_bytes) / 1e9, benchmark::Counter::kIsRate);
}

constexpr int peak_steps = 1000000;

[[gnu::target("avx512f")]] void multiply_add_in_registers() {
  Vector sum[16] = {}, factor = {};
  for (int i = 0; i < 16; ++i) factor[i] = 0.5F;
  for (int step = 0; step < peak_steps; ++step) {
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) __asm__ volatile("vfmadd231ps %1, %1, %0" : "+v"(sum[i]) : "v"(factor));
  }
  Vector total = {};
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) total += sum[i];
  benchmark::DoNotOptimize(total);
}

void multiply_add_peak(benchmark::State& state) {
  ThreadPool pool(thread_count());
  for (auto _ : state) pool.run([](int, int) { multiply_add_in_registers(); });
  const double operations = 2.0 * 16 * 16 * peak_steps * pool.size() * static_cast<double>(state.iterations());
  state.counters["GFLOP/s"] = benchmark::Counter(operations / 1e9, benchmark::Counter::kIsRate);
}

void register_all() {
  const struct {
    const char* name;
    LinearShape shape;
  } cases[] = {{"qkv", {1152, 896, 1}},
               {"o", {896, 896, 2}},
               {"gate_up", {9728, 896, 1}},
               {"down", {896, 4864, 8}},
               {"lm_head", {151936, 896, 1}}};
  for (const Isa isa : available_isas()) {
    if (isa == Isa::scalar) continue;
    for (const auto& one : cases) {
      benchmark::RegisterBenchmark(
          (std::string(name_of(isa)) + "/" + one.name).c_str(),
          [isa, shape = one.shape](benchmark::State& state) { linear_rows(state, isa, shape); })
          ->Arg(1)
          ->Arg(8)
          ->Arg(32)
          ->Arg(512)
          ->UseRealTime()
          ->Unit(benchmark::kMicrosecond);
    }
  }
  if (choose_isa("avx512-bf16").ok()) {
    benchmark::RegisterBenchmark("read_bandwidth", read_bandwidth)->UseRealTime()->Unit(benchmark::kMillisecond);
    benchmark::RegisterBenchmark("multiply_add_peak", multiply_add_peak)->UseRealTime()->Unit(benchmark::kMillisecond);
  }
}

}  // namespace
}  // namespace chorus

int main(int argc, char** argv) {
  chorus::register_all();
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
}

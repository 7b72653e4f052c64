// Attention, the row-wise operations and the sampler at the sizes of a 0.5B to 8B model. Two counters matter: flops
// (share of the processor's multiply-add peak in prefill) and bytes read from the KV cache a second (share of memory
// bandwidth in decode).
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <numeric>
#include <random>
#include <thread>
#include <vector>

#include "kernels/attention.h"
#include "kernels/elementwise.h"
#include "kernels/sample.h"
#include "tensor/scratch.h"

namespace chorus {
namespace {

int thread_count() {
  return static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
}

std::vector<float> normal(std::size_t count, float spread = 1.0F) {
  std::mt19937 random(7);
  std::normal_distribution<float> distribution(0.0F, spread);
  std::vector<float> values(count);
  for (float& value : values) value = distribution(random);
  return values;
}

struct Shape {
  int heads, kv_heads, head_dim;
  KvDType dtype;
};

// `sequences` sequences of `length` tokens, of which the last `rows` are asked, in shuffled blocks of 16.
class Attention {
 public:
  Attention(const Shape& shape, int sequences, int length, int rows) : shape_(shape), pool_(thread_count()) {
    const int blocks = (length + 15) / 16;
    cache_.layout = {shape.kv_heads, shape.head_dim, 16, shape.dtype};
    memory_.resize(
        cache_.layout.block_bytes() * static_cast<std::size_t>(blocks) * static_cast<std::size_t>(sequences) + 64);
    void* aligned = memory_.data();
    std::size_t room = memory_.size();
    cache_.data = static_cast<std::byte*>(std::align(64, room - 64, aligned, room));
    table_.resize(static_cast<std::size_t>(blocks) * static_cast<std::size_t>(sequences));
    std::iota(table_.begin(), table_.end(), 0);
    std::shuffle(table_.begin(), table_.end(), std::mt19937(3));
    const int kv_width = shape.kv_heads * shape.head_dim;
    const std::vector<float> kv = normal(static_cast<std::size_t>(length) * static_cast<std::size_t>(kv_width));
    for (int n = 0; n < sequences; ++n) {
      const std::span<const std::int32_t> table = std::span(table_).subspan(
          static_cast<std::size_t>(n) * static_cast<std::size_t>(blocks), static_cast<std::size_t>(blocks));
      const AttentionSequence all = {0, 0, length, table};
      kv_write(pool_, isa_, cache_, {&all, 1}, kv.data(), kv_width, kv.data(), kv_width);
      sequences_.push_back({std::int64_t{n} * rows, length - rows, rows, table});
    }
    q_ = normal(static_cast<std::size_t>(sequences) * static_cast<std::size_t>(rows) *
                static_cast<std::size_t>(shape.heads * shape.head_dim));
    out_.resize(q_.size());
  }

  void run() {
    const int width = shape_.heads * shape_.head_dim;
    attention(pool_, scratch_, isa_, cache_, sequences_,
              {shape_.heads, 1.0F / std::sqrt(static_cast<float>(shape_.head_dim)), 0}, q_.data(), width, out_.data(),
              width);
    benchmark::DoNotOptimize(out_.data());
  }

 private:
  Shape shape_;
  Isa isa_ = available_isas().front();
  ThreadPool pool_;
  Scratch scratch_;
  std::vector<std::byte> memory_;
  KvCacheLayer cache_;
  std::vector<std::int32_t> table_;
  std::vector<AttentionSequence> sequences_;
  std::vector<float> q_, out_;
};

benchmark::Counter rate(double each) {
  return {each, benchmark::Counter::kIsIterationInvariantRate};
}

void prefill(benchmark::State& state, Shape shape, int length) {
  Attention attention(shape, 1, length, length);
  for (auto _ : state) attention.run();
  const double pairs = 0.5 * length * (length + 1);
  state.counters["flops"] = rate(4.0 * pairs * shape.heads * shape.head_dim);
}
BENCHMARK_CAPTURE(prefill, qwen2_0_5b_512, Shape{14, 2, 64, KvDType::bfloat16}, 512)->UseRealTime();
BENCHMARK_CAPTURE(prefill, qwen2_0_5b_512_f32, Shape{14, 2, 64, KvDType::float32}, 512)->UseRealTime();
BENCHMARK_CAPTURE(prefill, qwen2_0_5b_512_int8, Shape{14, 2, 64, KvDType::int8}, 512)->UseRealTime();
BENCHMARK_CAPTURE(prefill, llama_8b_512, Shape{32, 8, 128, KvDType::bfloat16}, 512)->UseRealTime();
BENCHMARK_CAPTURE(prefill, qwen2_0_5b_4096, Shape{14, 2, 64, KvDType::bfloat16}, 4096)->UseRealTime();
BENCHMARK_CAPTURE(prefill, multi_head_512, Shape{8, 8, 64, KvDType::bfloat16}, 512)->UseRealTime();

void decode(benchmark::State& state, Shape shape, int sequences, int length) {
  Attention attention(shape, sequences, length, 1);
  for (auto _ : state) attention.run();
  state.counters["bytes"] =
      rate(2.0 * sequences * length * shape.kv_heads *
           static_cast<double>(kv_row_bytes(shape.dtype, static_cast<std::size_t>(shape.head_dim))));
}
BENCHMARK_CAPTURE(decode, qwen2_0_5b_32x1024, Shape{14, 2, 64, KvDType::bfloat16}, 32, 1024)->UseRealTime();
BENCHMARK_CAPTURE(decode, qwen2_0_5b_256x1024, Shape{14, 2, 64, KvDType::bfloat16}, 256, 1024)->UseRealTime();
BENCHMARK_CAPTURE(decode, llama_8b_32x1024, Shape{32, 8, 128, KvDType::bfloat16}, 32, 1024)->UseRealTime();
BENCHMARK_CAPTURE(decode, llama_8b_32x1024_f32, Shape{32, 8, 128, KvDType::float32}, 32, 1024)->UseRealTime();
BENCHMARK_CAPTURE(decode, llama_8b_32x1024_int8, Shape{32, 8, 128, KvDType::int8}, 32, 1024)->UseRealTime();
BENCHMARK_CAPTURE(decode, multi_head_32x1024, Shape{16, 16, 64, KvDType::bfloat16}, 32, 1024)->UseRealTime();
BENCHMARK_CAPTURE(decode, one_sequence_32768, Shape{14, 2, 64, KvDType::bfloat16}, 1, 32768)->UseRealTime();
BENCHMARK_CAPTURE(decode, one_kv_head_32768, Shape{8, 1, 64, KvDType::bfloat16}, 1, 32768)->UseRealTime();

// What decode could reach: a sum over memory that no cache holds.
void read_bandwidth(benchmark::State& state) {
  ThreadPool pool(thread_count());
  std::vector<std::uint64_t> memory(std::size_t{1} << 26, 1);
  std::vector<std::uint64_t> sums(static_cast<std::size_t>(pool.size()) * 8);
  for (auto _ : state) {
    pool.run([&](int thread, int count) {
      const std::size_t share = memory.size() / static_cast<std::size_t>(count);
      const auto begin = memory.begin() + static_cast<std::ptrdiff_t>(share) * thread;
      sums[static_cast<std::size_t>(thread) * 8] =
          std::accumulate(begin, begin + static_cast<std::ptrdiff_t>(share), std::uint64_t{0});
    });
    benchmark::DoNotOptimize(sums.data());
  }
  state.counters["bytes"] = rate(static_cast<double>(memory.size() * 8));
}
BENCHMARK(read_bandwidth)->UseRealTime();

void sample(benchmark::State& state, double temperature, double top_p, std::int32_t top_k, float spread) {
  constexpr std::int32_t vocabulary = 151936;
  const std::vector<float> logits = normal(vocabulary, spread);
  Sampler sampler(available_isas().front(), vocabulary);
  SampleInput input;
  input.logits = logits;
  input.temperature = temperature;
  input.top_p = top_p;
  input.top_k = top_k;
  for (auto _ : state) {
    ++input.seed;
    benchmark::DoNotOptimize(sampler.sample(input));
  }
}
BENCHMARK_CAPTURE(sample, greedy, 0.0, 1.0, 0, 3.0F);
BENCHMARK_CAPTURE(sample, all, 1.0, 1.0, 0, 3.0F);
BENCHMARK_CAPTURE(sample, top_p, 1.0, 0.9, 0, 3.0F);
BENCHMARK_CAPTURE(sample, top_p_flat, 1.0, 0.9, 0, 0.5F);
BENCHMARK_CAPTURE(sample, top_k_40_top_p, 1.0, 0.9, 40, 3.0F);

void logprobs(benchmark::State& state) {
  const std::vector<float> logits = normal(151936, 3.0F);
  Sampler sampler(available_isas().front(), 151936);
  std::vector<SampledLogprob> top;
  for (auto _ : state) benchmark::DoNotOptimize(sampler.logprobs(logits, 5, 20, &top));
}
BENCHMARK(logprobs);

void row_wise(benchmark::State& state) {
  const std::int64_t m = state.range(0), width = 4864;
  ThreadPool pool(thread_count());
  const std::vector<float> gate_up = normal(static_cast<std::size_t>(m * 2 * width)), weight = normal(896);
  std::vector<float> out(static_cast<std::size_t>(m * width));
  for (auto _ : state) {
    silu_mul(pool, available_isas().front(), gate_up.data(), m, width, 2 * width, out.data(), width);
    rms_norm(pool, available_isas().front(), out.data(), m, 896, width, weight.data(), 1e-6F, out.data(), width);
  }
  state.counters["rows"] = rate(static_cast<double>(m));
}
BENCHMARK(row_wise)->Arg(1)->Arg(32)->Arg(512)->UseRealTime();

}  // namespace
}  // namespace chorus

BENCHMARK_MAIN();

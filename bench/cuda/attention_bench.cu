// Attention and the row-wise operations of Llama-3-8B's shape: 32 heads, 8 KV heads of 128.
#include <numeric>

#include "gpu_bench.h"
#include "kernels/attention_cuda.h"
#include "kernels/elementwise_cuda.h"

namespace chorus {
namespace {

constexpr std::int32_t heads = 32, kv_heads = 8, head_dim = 128, block_size = 16;

// `count` sequences with `rows` query rows each at the end of `length` keys, blocks in a scattered order.
void bench_one(Bench& bench, const char* what, std::int32_t count, std::int32_t rows, std::int32_t length) {
  const std::int32_t blocks_each = (length + block_size - 1) / block_size, blocks = blocks_each * count;
  std::vector<std::int32_t> tables(static_cast<std::size_t>(blocks));
  for (std::int32_t i = 0; i < blocks; ++i)
    tables[static_cast<std::size_t>(i)] = static_cast<std::int32_t>((std::int64_t{i} * 7919) % blocks);
  std::vector<CudaSequence> sequences;
  for (std::int32_t i = 0; i < count; ++i) sequences.push_back({i * rows, length - rows, rows, i});
  DeviceArray<std::uint16_t> cache(static_cast<std::size_t>(blocks) * kv_heads * 2 * block_size * head_dim);
  DeviceArray<std::uint16_t> q(static_cast<std::size_t>(count) * rows * heads * head_dim), out(q.size());
  fill_random(cache, 1);
  fill_random(q, 2);
  const DeviceArray<std::int32_t> table(tables);
  const DeviceArray<CudaSequence> list(sequences);
  CudaAttention call{q.data(),     heads * head_dim, out.data(),  heads * head_dim,
                     cache.data(), table.data(),     blocks_each, list.data()};
  call.sequence_count = count;
  call.rows_max = rows;
  call.positions_max = length;
  call.heads = heads;
  call.kv_heads = kv_heads;
  call.scale = 0.088388347648F;
  const DeviceArray<float> states(rows == 1 ? static_cast<std::size_t>(attention_cuda_state_floats(call)) : 1);
  call.states = states.data();
  const double us = bench.microseconds(4, [&](int) { attention_cuda(bench.queue, call); });
  const double bytes = 2.0 * static_cast<double>(cache.size());
  const double keys = static_cast<double>(rows) * (length - (rows - 1) / 2.0);  // that the rows of a sequence see
  const double operations = 4.0 * count * keys * heads * head_dim;
  std::printf("%-40s %9.1f us %6.0f GB/s %4.0f %% of reading %6.1f TFLOP/s\n", what, us, bytes / us / 1e3,
              bytes / us * 1e8 / bench.read_bytes_per_s, operations / us / 1e6);
}

}  // namespace

void bench_attention(Bench& bench) {
  bench_one(bench, "decode, 256 sequences of 1,024 keys", 256, 1, 1024);
  bench_one(bench, "decode, 193 sequences of 1,060 keys", 193, 1, 1060);
  bench_one(bench, "decode, 32 sequences of 8,192 keys", 32, 1, 8192);
  bench_one(bench, "decode, 1 sequence of 1,060 keys", 1, 1, 1060);
  bench_one(bench, "decode, 1 sequence of 32,768 keys", 1, 1, 32768);
  bench_one(bench, "prefill, 8 sequences of 2,048", 8, 2048, 2048);
  bench_one(bench, "prefill, 1 chunk of 512 after 7,680", 1, 512, 8192);
}

void bench_rows(Bench& bench) {
  constexpr std::int32_t m = 16384, hidden = 4096, width = (heads + 2 * kv_heads) * head_dim;
  DeviceArray<float> x(static_cast<std::size_t>(m) * width);
  require(cudaMemset(x.data(), 0x3f, x.size() * 4), "set");
  DeviceArray<std::uint16_t> out(static_cast<std::size_t>(m) * hidden),
      cache(static_cast<std::size_t>(m) * kv_heads * 2 * head_dim);
  std::vector<std::int32_t> positions(m);
  std::vector<std::int64_t> slots(m);
  std::iota(slots.begin(), slots.end(), 0);
  for (std::int32_t i = 0; i < m; ++i) positions[static_cast<std::size_t>(i)] = i % 2048;
  const DeviceArray<std::int32_t> at(positions);
  const DeviceArray<std::int64_t> to(slots);
  const DeviceArray<std::int32_t> tokens(1);
  const auto report = [&](const char* what, std::int32_t rows, double bytes, auto&& queue_it) {
    const double us = bench.microseconds(4, [&](int) { queue_it(); });
    std::printf("%-30s %6d rows %9.1f us %6.0f GB/s %4.0f %% of reading\n", what, rows, us, bytes * rows / us / 1e3,
                bytes * rows / us * 1e8 / bench.read_bytes_per_s);
  };
  for (const std::int32_t rows : {1, 256, m}) {
    report("rms_norm of 4,096", rows, 6.0 * hidden, [&] {
      norm_cuda(bench.queue, {x.data(), hidden, rows, hidden, x.data(), 1e-5F, out.data(), hidden});
    });
    report("rotary and KV write", rows, 6.0 * width, [&] {
      rotary_write_cuda(bench.queue, {x.data(), width, rows, heads, kv_heads, head_dim, head_dim, at.data(), x.data(),
                                      out.data(), cache.data(), to.data(), block_size});
    });
  }
  report("gather of 4,096", 1, 6.0 * hidden, [&] {
    gather_cuda(bench.queue, {out.data(), nullptr, hidden, 0, m, at.data(), 1, hidden, x.data(), hidden});
  });
  constexpr std::int32_t words = 128256;
  report("argmax of 128,256", 1, 4.0 * words, [&] {
    argmax_cuda(bench.queue, {x.data(), words, 1, words, tokens.data()});
  });
}

}  // namespace chorus

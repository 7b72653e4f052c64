#include "kernels/limits.h"

#include <algorithm>
#include <memory>

#include "base/clock.h"
#include "kernels/limits_loops.h"
#include "kernels/linear_kernel.h"

namespace chorus {
namespace {

// The best of so many: the machine may do other work meanwhile, which only ever makes a loop slower.
constexpr int rounds = 15;

double (*loop_of(LinearLayout layout))(std::int64_t) {
  switch (layout) {
    case LinearLayout::rows:
      return multiply_add_scalar;
    case LinearLayout::lanes8:
      return multiply_add_avx2;
    case LinearLayout::lanes16:
      return multiply_add_avx512;
    case LinearLayout::tiles:
      return multiply_add_amx;
    case LinearLayout::groups:  // of which there is no loop
    case LinearLayout::matrix:
      break;
  }
  return multiply_add_scalar;
}

double seconds_since(Nanoseconds start) {
  return static_cast<double>(monotonic_now() - start) * 1e-9;
}

std::uint64_t sum_of(const std::uint64_t* words, std::int64_t count) {
  std::uint64_t sums[8] = {};
  for (std::int64_t i = 0; i + 8 <= count; i += 8) {
    for (std::int64_t j = 0; j < 8; ++j) sums[j] += words[i + j];
  }
  std::uint64_t total = 0;
  for (const std::uint64_t sum : sums) total += sum;
  return total;
}

}  // namespace

double multiply_add_scalar(std::int64_t steps) {
  float sums[8] = {}, factor = 0.5F;
  for (std::int64_t step = 0; step < steps; ++step) {
#pragma GCC unroll 8
    for (float& sum : sums) {
      sum += factor * factor;
      __asm__ volatile("" : "+x"(sum), "+x"(factor));  // neither dropped nor made a vector
    }
  }
  return 2.0 * 8 * static_cast<double>(steps);
}

double multiply_add_peak_per_s(ThreadPool& pool, Isa isa, DType dtype) {
  constexpr std::int64_t steps = 200'000;
  const auto loop = loop_of(linear_layout(isa, dtype));
  double best = 0;
  for (int round = 0; round < rounds; ++round) {
    const Nanoseconds start = monotonic_now();
    double operations = 0;
    pool.run([&](int thread, int count) {
      const double own = loop(steps);
      if (thread == 0) operations = own * count;
    });
    best = std::max(best, operations / seconds_since(start));
  }
  return best;
}

double read_bandwidth_bytes_per_s(ThreadPool& pool) {
  constexpr std::int64_t words = std::int64_t{512} << 17;  // 512 MiB
  const auto memory = std::make_unique_for_overwrite<std::uint64_t[]>(words);
  pool.for_range(words, [&](std::int64_t begin, std::int64_t end) {
    std::fill(memory.get() + begin, memory.get() + end, std::uint64_t{1});
  });
  double best = 0;
  for (int round = 0; round < rounds; ++round) {
    const Nanoseconds start = monotonic_now();
    pool.for_range(words, [&](std::int64_t begin, std::int64_t end) {
      std::uint64_t sum = sum_of(memory.get() + begin, end - begin);
      __asm__ volatile("" : "+r"(sum));  // it is used
    });
    best = std::max(best, static_cast<double>(words) * sizeof(std::uint64_t) / seconds_since(start));
  }
  return best;
}

}  // namespace chorus

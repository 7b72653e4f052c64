#include "kernels/linear_cuda.h"

#include <gtest/gtest.h>

#include <array>
#include <limits>

#include "kernels/cuda_test_device.h"
#include "kernels/elementwise.h"
#include "kernels/linear_cuda_impl.h"
#include "kernels/linear_test_util.h"
#if defined(__CUDACC__)
#include "kernels/linear_wgmma.h"
#endif

namespace chorus {
namespace {

using namespace cuda;  // the kernels

struct Problem {
  std::int32_t m, rows, columns, segments;
  std::vector<Bfloat16> x, w;

  Problem(std::int32_t m, std::int32_t rows, std::int32_t columns, std::int32_t segments, std::uint32_t seed)
      : m(m),
        rows(rows),
        columns(columns),
        segments(segments),
        x(random_bfloat16(std::int64_t{m} * columns, seed)),
        w(random_bfloat16(std::int64_t{rows} * columns, seed + 1000)) {}

  float x_at(std::int64_t row, std::int64_t k) const {
    return to_float(x[static_cast<std::size_t>(row * columns + k)]);
  }
  float w_at(std::int64_t row, std::int64_t k) const {
    return to_float(w[static_cast<std::size_t>(row * columns + k)]);
  }
};

// One way to compute a product: up to m_max rows of x.
struct Way {
  const char* name;
  std::int32_t m_max;
  void (*launch)(TestDevice&, const CudaLinear&);
};

template <int m_fragments>
void stream(TestDevice& device, const CudaLinear& call) {
  launch_stream_of<m_fragments>(device, call, {.count = 2});
}
template <typename Tiles>
void tiled(TestDevice& device, const CudaLinear& call) {
  launch_tiled<Tiles>(device, call);
}
void planned(TestDevice& device, const CudaLinear& call) {
  launch_linear(device, call, {.count = 3});
}
void planned_for_less_memory(TestDevice& device, const CudaLinear& call) {
  launch_linear(device, call, {.count = 1, .shared_bytes_max = 99 * 1024});
}

const std::array<Way, 8> ways = {{{"stream 8", 8, stream<1>},
                                  {"stream 16", 16, stream<2>},
                                  {"stream 32", 32, stream<4>},
                                  {"tiled 64 x 64", 1 << 30, tiled<TiledSmall>},
                                  {"tiled 128 x 128", 1 << 30, tiled<TiledMedium>},
                                  {"tiled 128 x 256", 1 << 30, tiled<TiledLarge>},
                                  {"planned", 1 << 30, planned},
                                  {"planned for less memory", 1 << 30, planned_for_less_memory}}};
constexpr std::size_t by_tiles = 3, by_plan = 6;

// y of rows [first, first + m) of x, float32 [m, rows].
std::vector<float> multiply(const Way& way, const Problem& problem, std::int32_t first, std::int32_t m,
                            std::uint64_t seed) {
  TestDevice device(seed);
  const std::vector<Bfloat16> x(problem.x.begin() + std::int64_t{first} * problem.columns,
                                problem.x.begin() + std::int64_t{first + m} * problem.columns);
  const std::size_t count = static_cast<std::size_t>(m) * static_cast<std::size_t>(problem.rows);
  float* y = device.put(std::vector<float>(count, std::numeric_limits<float>::quiet_NaN()));
  CudaLinear call{device.put(x),   problem.columns, m, device.put(problem.w), problem.rows,
                  problem.columns, problem.segments};
  call.y = y;
  call.ldy = problem.rows;
  way.launch(device, call);
  return device.get(y, count);
}

// Whether y is x W^T within float32 sums; the bound is that of linear_test_util.h.
testing::AssertionResult is_product_of(const Problem& problem, const std::vector<float>& y) {
  const double relative = sum_error(problem.columns);
  for (std::int64_t i = 0; i < problem.m; ++i) {
    for (std::int64_t n = 0; n < problem.rows; ++n) {
      double sum = 0, magnitude = 0;
      for (std::int64_t k = 0; k < problem.columns; ++k) {
        const double product = static_cast<double>(problem.x_at(i, k)) * static_cast<double>(problem.w_at(n, k));
        sum += product;
        magnitude += std::abs(product);
      }
      const double got = static_cast<double>(y[static_cast<std::size_t>(i * problem.rows + n)]);
      if (!(std::abs(got - sum) <= relative * magnitude)) {
        return testing::AssertionFailure() << "row " << i << " output " << n << ": " << got << ", expected " << sum;
      }
    }
  }
  return testing::AssertionSuccess();
}

// Goal: the product, whatever the tails of m, rows, columns and segments. Method: random shapes against a double sum.
TEST(LinearCuda, IsTheProductForOddShapes) {
  std::mt19937 generator(1);
  const auto draw = [&](int low, int high) {
    return std::uniform_int_distribution<std::int32_t>(low, high)(generator);
  };
  for (const Way& way : ways) {
    for (std::uint32_t round = 0; round < 6; ++round) {
      const std::int32_t segments = 1 << draw(0, 3);
      const Problem problem(draw(1, std::min(way.m_max, 150)), 8 * draw(1, 40),
                            segments * 8 * draw(1, 24 / segments + 2), segments, round);
      EXPECT_TRUE(is_product_of(problem, multiply(way, problem, 0, problem.m, round)))
          << way.name << ": " << problem.m << " x " << problem.rows << " x " << problem.columns << " in " << segments;
    }
  }
}

// Goal: the promise. Method: the bits of all rows by one kernel; every other kernel and number of rows, under any order
// of warps and copies, must give them again.
TEST(LinearCuda, BitsOfARowDependOnThatRowAlone) {
  for (const std::int32_t segments : {1, 2, 4, 8}) {
    const Problem problem(150, 72, 8 * 24, segments, 7);
    const std::vector<float> expected = multiply(ways[by_tiles], problem, 0, problem.m, 0);
    std::uint64_t seed = 0;
    for (const Way& way : ways) {
      for (const std::int32_t m : {1, 7, 16, 17, 33, 64, 150}) {
        if (m > way.m_max) continue;
        const std::int32_t first = problem.m - m;
        const std::vector<float> y = multiply(way, problem, first, m, seed++);
        ASSERT_EQ(std::memcmp(y.data(), expected.data() + first * problem.rows, y.size() * sizeof(float)), 0)
            << way.name << " m " << m << " segments " << segments << " seed " << seed - 1;
      }
    }
  }
}

// Goal: the emulation has the bits of a GPU. Method: the same test on both, against one number.
TEST(LinearCuda, BitsAreHoppers) {
  if (!sums_as_hopper()) GTEST_SKIP() << "the expected bits are Hopper's, and this GPU sums otherwise (docs/cuda.md)";
  EXPECT_EQ(hash_of(multiply(ways[by_plan], Problem(20, 64, 8 * 96, 8, 21), 0, 20, 2)), 0x5b673bf77463e5a9U);
}

// Goal: tensor parallelism gives the bits of one rank. Method: products of column ranges, added in the tree's order.
TEST(LinearCuda, PartialSumsOfColumnRangesGiveTheBitsOfTheWhole) {
  const Problem whole(5, 48, 8 * 40, 8, 3);
  const std::vector<float> expected = multiply(ways[by_plan], whole, 0, 5, 2);
  for (const std::int32_t tp : {2, 4, 8}) {
    std::vector<std::vector<float>> sums;
    const std::int32_t columns = whole.columns / tp;
    for (std::int32_t rank = 0; rank < tp; ++rank) {
      Problem part(5, 48, columns, 8 / tp, 0);
      for (std::int64_t i = 0; i < 48; ++i) {
        if (i < 5)
          std::copy_n(whole.x.begin() + i * whole.columns + rank * columns, columns, part.x.begin() + i * columns);
        std::copy_n(whole.w.begin() + i * whole.columns + rank * columns, columns, part.w.begin() + i * columns);
      }
      sums.push_back(multiply(ways[by_plan], part, 0, 5, 4));
    }
    for (; sums.size() > 1; sums.resize(sums.size() / 2)) {
      for (std::size_t r = 0; r < sums.size() / 2; ++r) {
        std::vector<float> pair = sums[2 * r];
        for (std::size_t i = 0; i < pair.size(); ++i) pair[i] += sums[2 * r + 1][i];
        sums[r] = pair;
      }
    }
    EXPECT_EQ(sums[0], expected) << "tp " << tp;
  }
}

// The CPU's product of the same bfloat16 values differs by the roundings of both.
TEST(LinearCuda, AgreesWithTheCpu) {
  const LinearShape shape{40, 8 * 32, 8};
  const SourceMatrix source(DType::bfloat16, shape.rows, shape.columns, 3);
  const PackedMatrix packed(Isa::scalar, DType::bfloat16, shape, source);
  Problem problem(9, 40, 8 * 32, 8, 5);
  std::memcpy(problem.w.data(), source.bytes.data(), source.bytes.size());
  std::vector<float> x(problem.x.size()), y(9 * 40);
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = to_float(problem.x[i]);
  ThreadPool pool(1);
  Scratch scratch;
  linear(pool, scratch, packed.view, {x.data(), 9, shape.columns}, y.data(), shape.rows);
  EXPECT_TRUE(is_product_of(problem, y));
  EXPECT_TRUE(is_product_of(problem, multiply(ways[by_plan], problem, 0, 9, 3)));
}

class LinearCudaOutput : public testing::Test {
 protected:
  static constexpr std::int32_t m = 70, rows = 48, ldy = 52;
  const Problem problem_{m, rows, 64, 2, 11};
  const std::vector<float> bias_ = random_floats(rows, 12), before_ = random_floats(std::int64_t{m} * ldy, 13);
  const std::vector<float> sums_ = multiply(ways[by_plan], problem_, 0, m, 2);

  template <typename T>
  std::vector<T> run(std::vector<T> y, CudaLinearOutput output, std::int32_t count, bool biased) {
    TestDevice device(5);
    T* to = device.put(y);
    CudaLinear call{device.put(problem_.x), problem_.columns, count, device.put(problem_.w), rows, problem_.columns, 2};
    call.bias = biased ? device.put(bias_) : nullptr;
    call.y = to;
    call.ldy = ldy;
    call.output = output;
    launch_linear(device, call, {.count = 3});
    return device.get(to, y.size());
  }
  float sum_at(std::int64_t i, std::int64_t n, bool biased) const {
    return sums_[static_cast<std::size_t>(i * rows + n)] + (biased ? bias_[static_cast<std::size_t>(n)] : 0.0F);
  }
};

TEST_F(LinearCudaOutput, AccumulateAddsAndStoreReplaces) {
  for (const bool accumulate : {false, true}) {
    for (const std::int32_t count : {3, m}) {
      const bool biased = count == 3;
      const auto y = run(before_, accumulate ? CudaLinearOutput::accumulate : CudaLinearOutput::store, count, biased);
      for (std::int64_t i = 0; i < m; ++i) {
        for (std::int64_t n = 0; n < ldy; ++n) {
          const auto at = static_cast<std::size_t>(i * ldy + n);
          const bool written = i < count && n < rows;
          const float sum = written ? sum_at(i, n, biased) : 0;
          ASSERT_EQ(y[at], !written ? before_[at] : accumulate ? before_[at] + sum : sum) << i << " " << n;
        }
      }
    }
  }
}

// The bits of linear(), silu_mul() and rounding one after the other, as the CPU has them.
TEST_F(LinearCudaOutput, RoundAndGateGiveBfloat16) {
  ThreadPool pool(1);
  for (const std::int32_t count : {3, m}) {
    const std::vector<Bfloat16> none(static_cast<std::size_t>(m) * ldy, 0x1234);
    const auto rounded = run(none, CudaLinearOutput::round, count, true);
    const auto gated = run(none, CudaLinearOutput::gate, count, true);
    for (std::int64_t i = 0; i < count; ++i) {
      std::vector<float> gate_up(rows), activated(rows / 2);
      for (std::int64_t n = 0; n < rows; ++n) {
        ASSERT_EQ(rounded[static_cast<std::size_t>(i * ldy + n)], to_bfloat16(sum_at(i, n, true)));
        gate_up[static_cast<std::size_t>(n % 2 * rows / 2 + n / 2)] = sum_at(i, n, true);
      }
      silu_mul(pool, Isa::scalar, gate_up.data(), 1, rows / 2, rows, activated.data(), rows / 2);
      for (std::int64_t n = 0; n < rows / 2; ++n) {
        ASSERT_EQ(gated[static_cast<std::size_t>(i * ldy + n)], to_bfloat16(activated[static_cast<std::size_t>(n)]));
      }
    }
  }
}

template <bool gelu>
SIMT_KERNEL activate_fours(const float* x, float* y, int count) {
  const int first = 4 * (simt::block_x() * simt::threads() + simt::thread());
  if (first >= count) return;
  float values[4] = {x[first], x[first + 1], x[first + 2], x[first + 3]};
  activate<gelu>(values);
  for (int i = 0; i < 4; ++i) y[first + i] = values[i];
}
template <bool gelu>
SIMT_KERNEL activate_each(const float* x, float* y, int count) {
  const int at = simt::block_x() * simt::threads() + simt::thread();
  if (at < count) y[at] = activated<gelu>(x[at]);
}

template <bool gelu>
void expect_fours_as_each(const std::vector<float>& x) {
  TestDevice device;
  const auto count = static_cast<int>(x.size());
  const float* from = device.put(x);
  float *fours = device.put(x), *each = device.put(x);
  device({.x = (count / 4 + 127) / 128, .threads = 128}, activate_fours<gelu>, from, fours, count);
  device({.x = (count + 127) / 128, .threads = 128}, activate_each<gelu>, from, each, count);
  const std::vector<float> got = device.get(fours, x.size()), expected = device.get(each, x.size());
  for (std::size_t i = 0; i < x.size(); ++i) {
    if (std::isnan(expected[i]) && std::isnan(got[i])) continue;
    ASSERT_EQ(std::bit_cast<std::uint32_t>(got[i]), std::bit_cast<std::uint32_t>(expected[i])) << x[i];
  }
}

// Goal: the quotient without a branch has the bits of IEEE division, and is used only where it has. Method: any bits at
// all, and values of the usual sizes, in fours of one kind and of mixed kinds.
TEST(LinearCudaGate, FoursHaveTheBitsOfEach) {
  std::mt19937 generator(4);
  std::vector<float> x(TestDevice::emulated ? 4096 : 1 << 22);
  for (std::size_t i = 0; i < x.size(); ++i) {
    const float any = std::bit_cast<float>(static_cast<std::uint32_t>(generator()));
    const float usual = std::uniform_real_distribution<float>(-66, 66)(generator);
    const float small = std::ldexp(usual, -static_cast<int>(generator() % 80));
    x[i] = i % 32 < 8 ? any : i % 32 < 20 ? usual : small;
  }
  expect_fours_as_each<false>(x);
  expect_fours_as_each<true>(x);
}

#if defined(__CUDACC__)
class LinearWgmma : public testing::Test {
 protected:
  void SetUp() override {
    int major = 0;
    cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0);
    if (major != 9) GTEST_SKIP() << "wgmma is Hopper's";
    queue_.capability = 90;
    queue_.shared_bytes_max = 227 * 1024;
  }
  // y as bytes, beyond the outputs too, after linear_tiled if there is no way.
  static std::vector<std::uint32_t> y_of(CudaQueue queue, const Problem& problem, CudaLinearOutput output, bool biased,
                                         const WgmmaWay* way) {
    TestDevice device;
    const std::int32_t ldy = problem.rows + 12;
    const std::vector<float> before = random_floats(std::int64_t{problem.m + 1} * ldy, 5);
    float* y = device.put(before);
    CudaLinear call{device.put(problem.x), problem.columns, problem.m,       device.put(problem.w),
                    problem.rows,          problem.columns, problem.segments};
    call.bias = biased ? device.put(random_floats(problem.rows, 6)) : nullptr;
    call.y = y;
    call.ldy = ldy;
    call.output = output;
    if (way != nullptr) {
      way->queue(queue, call);
    } else {
      launch_tiled<TiledMedium>(device, call);
    }
    EXPECT_EQ(queue.error, nullptr);
    return device.get(reinterpret_cast<const std::uint32_t*>(y), before.size());
  }
  void expect_equal(const Problem& problem, int processors, bool biased) {
    queue_.processors = processors;
    using enum CudaLinearOutput;
    for (const CudaLinearOutput output : {store, accumulate, round, gate, gelu_gate}) {
      const auto expected = y_of(queue_, problem, output, biased, nullptr);
      for (const WgmmaWay& way : wgmma_ways()) {
        if (!way.can(problem.segments)) continue;
        EXPECT_TRUE(y_of(queue_, problem, output, biased, &way) == expected)
            << way.name << ", output " << static_cast<int>(output) << ", " << problem.m << " x " << problem.rows
            << " x " << problem.columns << " in " << problem.segments << ", " << processors << " blocks";
      }
    }
  }
  CudaQueue queue_;
};

// Goal: wgmma has linear_tiled's bits in every way, with every output, and writes nothing else. Method: ragged m and
// rows; one block that walks through all tiles, few, and one a tile; fewer stages of columns than the ring has, and
// more.
TEST_F(LinearWgmma, HasTheBitsOfTiles) {
  expect_equal(Problem(1, 8, 64, 1, 1), 1, false);
  expect_equal(Problem(33, 72, 128, 1, 2), 2, true);
  expect_equal(Problem(200, 648, 704, 1, 3), 3, true);
  expect_equal(Problem(391, 1304, 1024, 1, 4), 132, false);
  expect_equal(Problem(2100, 264, 256, 1, 5), 5, false);
  expect_equal(Problem(64, 128, 128, 2, 6), 1, true);
  expect_equal(Problem(150, 392, 768, 4, 7), 2, false);
  expect_equal(Problem(257, 264, 512, 8, 8), 3, true);
  expect_equal(Problem(391, 520, 2560, 8, 9), 132, false);
}

TEST_F(LinearWgmma, AgreesAsEnginesAsk) {
  queue_.processors = 132;
  EXPECT_TRUE(wgmma_agrees(queue_));
  EXPECT_EQ(queue_.error, nullptr);
}
#endif

TEST(LinearCudaPlan, PiecesAreSixteensAndFillTheProcessors) {
  EXPECT_EQ(stream_piece(6144, 132, 64), 48);
  EXPECT_EQ(stream_piece(4096, 132, 32), 32);
  EXPECT_EQ(stream_piece(28672, 132, 128), 112);   // two rounds of 112, not three of 80
  EXPECT_EQ(stream_piece(128256, 132, 128), 112);  // nine, not eight of 128
  EXPECT_EQ(stream_piece(8, 132, 64), 16);
}

}  // namespace
}  // namespace chorus

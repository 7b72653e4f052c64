#include "kernels/linear.h"

#include <gtest/gtest.h>

#include <array>
#include <limits>
#include <ostream>

#include "kernels/elementwise.h"
#include "kernels/linear_kernel.h"
#include "kernels/linear_test_util.h"
#include "kernels/linear_tiles.h"

namespace chorus {
namespace {

// TDPBF16PS in plain C++ (Intel SDM vol. 2B): a step's even and odd columns are summed apart, then together, then added
// to the tile.
struct EmulatedTiles {
  struct Tile {
    std::array<float, 256> floats;
  };
  static thread_local std::array<Tile, 8> tiles;
  static thread_local bool configured;

  static void configure() { configured = true; }
  static void release() { configured = false; }
  static void prefetch(const std::byte*) {}
  static void prefetch_to_write(const float*) {}
  template <int tile>
  static void zero() {
    EXPECT_TRUE(configured);
    tiles[tile].floats.fill(0);
  }
  template <int tile>
  static void load(const std::byte* data) {
    std::memcpy(&tiles[tile], data, 1024);
  }
  template <int tile>
  static void load_sums(const float* sums, std::int64_t stride) {
    for (std::int64_t i = 0; i < 16; ++i) std::copy_n(sums + i * stride, 16, tiles[tile].floats.begin() + i * 16);
  }
  template <int tile>
  static void store_sums(float* sums, std::int64_t stride) {
    for (std::int64_t i = 0; i < 16; ++i) std::copy_n(tiles[tile].floats.begin() + i * 16, 16, sums + i * stride);
  }
  template <int sum, int a, int b>
  static void dot() {
    std::array<Bfloat16, 512> x, w;
    std::memcpy(x.data(), &tiles[a], 1024);
    std::memcpy(w.data(), &tiles[b], 1024);
    for (std::size_t i = 0; i < 16; ++i) {
      std::array<float, 32> part = {};
      for (std::size_t pair = 0; pair < 16; ++pair) {
        for (std::size_t n = 0; n < 32; ++n)
          part[n] += to_float(x[i * 32 + pair * 2 + n % 2]) * to_float(w[pair * 32 + n]);
      }
      for (std::size_t n = 0; n < 16; ++n) tiles[sum].floats[i * 16 + n] += part[2 * n] + part[2 * n + 1];
    }
  }
};
thread_local std::array<EmulatedTiles::Tile, 8> EmulatedTiles::tiles;
thread_local bool EmulatedTiles::configured = false;

struct Profile {
  Isa isa;
  DType dtype;
  bool emulated = false;  // AMX by EmulatedTiles
  double x_rounding() const { return isa == Isa::amx_bf16 && dtype == DType::bfloat16 ? 0x1p-8 : 0; }
};
void PrintTo(const Profile& profile, std::ostream* out) {
  *out << (profile.emulated ? "emulated " : "") << name_of(profile.isa) << " " << name_of(profile.dtype);
}

std::vector<Profile> profiles() {
  std::vector<Profile> all;
  for (const Isa isa : available_isas()) {
    for (const DType dtype : {DType::bfloat16, DType::float32}) all.push_back({isa, dtype, false});
  }
  all.push_back({Isa::amx_bf16, DType::bfloat16, true});
  return all;
}

class LinearTest : public testing::TestWithParam<Profile> {
 protected:
  Isa isa() const { return GetParam().isa; }
  DType dtype() const { return GetParam().dtype; }

  std::vector<float> multiply(ThreadPool& pool, const PackedLinear& weight, const float* x, std::int64_t m,
                              std::int64_t ldx) {
    std::vector<float> y(static_cast<std::size_t>(m * weight.shape.rows), std::numeric_limits<float>::quiet_NaN());
    run(pool, weight, x, m, ldx, y.data(), weight.shape.rows, {});
    return y;
  }
  void run(ThreadPool& pool, const PackedLinear& weight, const float* x, std::int64_t m, std::int64_t ldx, float* y,
           std::int64_t ldy, const LinearEpilogue& epilogue) {
    linear_with(kernel(), pool, scratch_, weight, {x, m, ldx}, y, ldy, epilogue);
  }
  const LinearKernel& kernel() const {
    return GetParam().emulated ? linear_kernel_tiles<EmulatedTiles> : linear_kernel(isa(), dtype());
  }
  static std::vector<float> row_of(const std::vector<float>& y, std::int64_t row, std::int64_t width) {
    return {y.begin() + row * width, y.begin() + (row + 1) * width};
  }

  ThreadPool one_{1}, two_{2};
  Scratch scratch_;
};

// Goal: the product, for every tail of rows, columns, segments and m. Method: random shapes against a double sum and
// its bound.
TEST_P(LinearTest, IsTheProductForOddShapes) {
  std::mt19937 generator(1);
  const auto draw = [&](int low, int high) {
    return std::uniform_int_distribution<std::int64_t>(low, high)(generator);
  };
  for (int round = 0; round < 150; ++round) {
    const int segments = 1 << draw(0, 3);
    const LinearShape shape{round % 3 == 0 ? 31 + draw(0, 2) : draw(1, 100), segments * draw(1, 200 / segments),
                            segments};
    const std::int64_t m = round % 4 == 0 ? draw(1, 4) : draw(1, 70), ldx = shape.columns + draw(0, 3);
    const DType source_dtype =
        std::array{DType::bfloat16, DType::float16, DType::float32}[static_cast<std::size_t>(round % 3)];
    const SourceMatrix source(source_dtype, shape.rows, shape.columns, static_cast<std::uint32_t>(round));
    const PackedMatrix packed(isa(), dtype(), shape, source);
    const std::vector<float> x = random_floats(m * ldx, static_cast<std::uint32_t>(round + 1000));
    const std::vector<float> y = multiply(two_, packed.view, x.data(), m, ldx);
    ASSERT_TRUE(is_product(y.data(), shape.rows, x.data(), m, ldx, packed.view, GetParam().x_rounding()))
        << shape.rows << " x " << shape.columns << " segments " << segments << " m " << m;
  }
}

TEST_P(LinearTest, UnpackedRowsAreTheSourceRoundedToThePackedDtype) {
  for (const DType source_dtype : {DType::bfloat16, DType::float16, DType::float32}) {
    for (const int segments : {1, 2, 8}) {
      const LinearShape shape{45, 8 * 19, segments};
      const SourceMatrix source(source_dtype, shape.rows, shape.columns, 5);
      const PackedMatrix packed(isa(), dtype(), shape, source);
      std::vector<float> row(static_cast<std::size_t>(shape.columns));
      for (std::int64_t n = 0; n < shape.rows; ++n) {
        unpack_linear_row(packed.view, n, row.data());
        for (std::int64_t k = 0; k < shape.columns; ++k) {
          const float value = source.at(n, k);
          const float expected = dtype() == DType::float32 ? value : to_float(to_bfloat16(value));
          ASSERT_EQ(row[static_cast<std::size_t>(k)], expected) << "row " << n << " column " << k;
        }
      }
    }
  }
}

// Goal: the promise. Method: each row alone on one thread gives the bits; every other m, stride, alignment and number
// of threads must give them again.
TEST_P(LinearTest, BitsOfARowDependOnThatRowAlone) {
  ThreadPool three(3);
  for (const LinearShape shape :
       {LinearShape{97, 150, 1}, LinearShape{64, 8 * 43, 8}, LinearShape{200, 4 * 16, 4}, LinearShape{1, 33, 1}}) {
    const SourceMatrix source(DType::bfloat16, shape.rows, shape.columns, 9);
    const PackedMatrix packed(isa(), dtype(), shape, source);
    const std::int64_t m_max = 70, columns = shape.columns;
    const std::vector<float> x = random_floats(m_max * columns, 10);
    std::vector<std::vector<float>> expected;
    for (std::int64_t i = 0; i < m_max; ++i)
      expected.push_back(multiply(one_, packed.view, x.data() + i * columns, 1, columns));
    for (std::int64_t m = 2; m <= m_max; ++m) {
      const std::int64_t first = m_max - m, ldx = columns + m % 7, shift = m % 5;
      std::vector<float> strided(static_cast<std::size_t>(m * ldx + shift));
      for (std::int64_t i = 0; i < m; ++i) {
        std::copy_n(x.data() + (first + i) * columns, columns, strided.data() + shift + i * ldx);
      }
      for (ThreadPool* pool : {&one_, &two_, &three}) {
        const std::vector<float> y = multiply(*pool, packed.view, strided.data() + shift, m, ldx);
        for (std::int64_t i = 0; i < m; ++i) {
          ASSERT_EQ(row_of(y, i, shape.rows), expected[static_cast<std::size_t>(first + i)])
              << "m " << m << " row " << i << " threads " << pool->size() << " W " << shape.rows << " x " << columns;
        }
      }
    }
  }
}

// Goal: tensor parallelism gives the bits of one rank. Method: pack tp column ranges with segments / tp, add the
// partial sums in the tree's order.
TEST_P(LinearTest, PartialSumsOfColumnRangesGiveTheBitsOfTheWhole) {
  for (const std::int64_t segment : {16, 43, 64}) {
    const LinearShape shape{50, 8 * segment, 8};
    SourceMatrix source(DType::bfloat16, shape.rows, shape.columns, 3);
    const std::vector<float> x = random_floats(20 * shape.columns, 4);
    const std::vector<float> whole =
        multiply(two_, PackedMatrix(isa(), dtype(), shape, source).view, x.data(), 20, shape.columns);
    for (const int tp : {2, 4, 8}) {
      const LinearShape part{shape.rows, shape.columns / tp, 8 / tp};
      std::vector<std::vector<float>> sums;
      for (int rank = 0; rank < tp; ++rank) {
        source.first_column = rank * part.columns;
        const PackedMatrix packed(isa(), dtype(), part, source);
        sums.push_back(multiply(two_, packed.view, x.data() + rank * part.columns, 20, shape.columns));
      }
      for (; sums.size() > 1; sums.resize(sums.size() / 2)) {
        for (std::size_t r = 0; r < sums.size() / 2; ++r) {
          std::vector<float> pair = sums[2 * r];
          for (std::size_t i = 0; i < pair.size(); ++i) pair[i] += sums[2 * r + 1][i];
          sums[r] = pair;
        }
      }
      source.first_column = 0;
      EXPECT_EQ(sums[0], whole) << "tp " << tp << " segment " << segment;
    }
  }
}

TEST_P(LinearTest, BiasIsAddedToTheSumAndAccumulateAddsToWhatIsThere) {
  const LinearShape shape{45, 70, 2};
  const SourceMatrix source(DType::bfloat16, shape.rows, shape.columns, 3);
  const PackedMatrix packed(isa(), dtype(), shape, source);
  const std::int64_t m = 17, ldy = shape.rows + 3;
  const std::vector<float> x = random_floats(m * shape.columns, 4), bias = random_floats(shape.rows, 5);
  const std::vector<float> sum = multiply(one_, packed.view, x.data(), m, shape.columns),
                           before = random_floats(m * ldy, 6);
  for (const bool accumulate : {false, true}) {
    for (const bool biased : {false, true}) {
      std::vector<float> y = before;
      run(two_, packed.view, x.data(), m, shape.columns, y.data(), ldy, {biased ? bias.data() : nullptr, accumulate});
      for (std::int64_t i = 0; i < m; ++i) {
        for (std::int64_t n = 0; n < ldy; ++n) {
          const auto at = static_cast<std::size_t>(i * ldy + n);
          float expected = before[at];  // beyond the outputs: untouched
          if (n < shape.rows) {
            expected = sum[static_cast<std::size_t>(i * shape.rows + n)];
            if (biased) expected += bias[static_cast<std::size_t>(n)];
            if (accumulate) expected = before[at] + expected;
          }
          ASSERT_EQ(y[at], expected) << "row " << i << " output " << n;
        }
      }
    }
  }
}

// Goal: neither a segment of many steps nor more rows than a group holds changes a bit. Method: as above, at sizes
// where every kernel cuts columns and rows into several parts.
TEST_P(LinearTest, LongRowsAndManyOfThemKeepTheirBits) {
  for (const LinearShape shape : {LinearShape{70, 2 * 33 * 32 + 6, 2}, LinearShape{33, 8 * 20 * 32, 8}}) {
    const SourceMatrix source(DType::bfloat16, shape.rows, shape.columns, 11);
    const PackedMatrix packed(isa(), dtype(), shape, source);
    const std::int64_t m = 165, columns = shape.columns;
    const std::vector<float> x = random_floats(m * columns, 12);
    const std::vector<float> y = multiply(two_, packed.view, x.data(), m, columns);
    for (const std::int64_t i : {0, 15, 16, 31, 32, 127, 128, 150, 164}) {
      const std::vector<float> alone = multiply(one_, packed.view, x.data() + i * columns, 1, columns);
      ASSERT_EQ(row_of(y, i, shape.rows), alone) << "row " << i << " W " << shape.rows << " x " << columns;
    }
  }
}

// Goal: what gated_input() makes is what the operations give one after the other. Method: the next product of it, bit
// by bit, for widths and segments that are whole tiles and such that are not.
TEST_P(LinearTest, GatedInputGivesTheBitsOfItsParts) {
  const Isa elementwise = GetParam().emulated ? Isa::scalar : isa();
  ThreadPool three(3);
  for (const auto& [width, segments] : {std::pair{64, 1}, {64, 2}, {256, 8}, {288, 1}, {96, 4}, {40, 2}, {45, 1}}) {
    const LinearShape first{2 * width, 70, 1}, second{50, width, segments};
    const SourceMatrix first_source(DType::bfloat16, first.rows, first.columns, 13);
    const SourceMatrix second_source(DType::bfloat16, second.rows, second.columns, 14);
    const PackedMatrix gate_up(isa(), dtype(), first, first_source), next(isa(), dtype(), second, second_source);
    const std::vector<float> bias = random_floats(first.rows, 15);
    for (std::int64_t m = 1; m <= 70; m += m < 36 ? 1 : 17) {
      const std::vector<float> x = random_floats(m * 75, static_cast<std::uint32_t>(m));
      for (const float* added : {static_cast<const float*>(nullptr), bias.data()}) {
        std::vector<float> sums(static_cast<std::size_t>(m * first.rows)),
            activated(static_cast<std::size_t>(m * width));
        run(one_, gate_up.view, x.data(), m, 75, sums.data(), first.rows, {added, false});
        silu_mul(one_, elementwise, sums.data(), m, width, first.rows, activated.data(), width);
        const std::vector<float> expected = multiply(one_, next.view, activated.data(), m, width);
        for (ThreadPool* pool : {&one_, &two_, &three}) {
          const Scratch::Scope scope(scratch_);
          const LinearInput gated = gated_input_with(kernel(), elementwise, *pool, scratch_, gate_up.view, added,
                                                     {x.data(), m, 75}, next.view);
          std::vector<float> y(static_cast<std::size_t>(m * second.rows));
          linear_with(kernel(), *pool, scratch_, next.view, gated, y.data(), second.rows, {});
          ASSERT_EQ(y, expected) << "m " << m << " width " << width << " segments " << segments << " threads "
                                 << pool->size();
        }
      }
    }
  }
}

TEST_P(LinearTest, NotANumberAndInfinityStayInTheirRow) {
  const LinearShape shape{40, 90, 2};
  const SourceMatrix source(DType::bfloat16, shape.rows, shape.columns, 3);
  const PackedMatrix packed(isa(), dtype(), shape, source);
  std::vector<float> x = random_floats(9 * shape.columns, 4);
  const std::vector<float> clean = multiply(one_, packed.view, x.data(), 9, shape.columns);
  x[static_cast<std::size_t>(3 * shape.columns + 7)] = std::numeric_limits<float>::quiet_NaN();
  x[static_cast<std::size_t>(6 * shape.columns + 89)] = std::numeric_limits<float>::infinity();
  const std::vector<float> y = multiply(one_, packed.view, x.data(), 9, shape.columns);
  for (std::int64_t i = 0; i < 9; ++i) {
    const std::vector<float> row = row_of(y, i, shape.rows);
    for (std::size_t n = 0; n < row.size(); ++n) {
      if (i == 3) {
        EXPECT_TRUE(std::isnan(row[n]));
      }
      EXPECT_EQ(std::isfinite(row[n]), i != 3 && i != 6);
    }
    if (i != 3 && i != 6) {
      EXPECT_EQ(row, row_of(clean, i, shape.rows));
    }
  }
}

TEST_P(LinearTest, NoRowsIsNothing) {
  const LinearShape shape{3, 4, 1};
  const PackedMatrix packed(isa(), dtype(), shape, SourceMatrix(DType::bfloat16, 3, 4, 3));
  run(two_, packed.view, nullptr, 0, 4, nullptr, 3, {});
}

INSTANTIATE_TEST_SUITE_P(Profiles, LinearTest, testing::ValuesIn(profiles()));

}  // namespace
}  // namespace chorus

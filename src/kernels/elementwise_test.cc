#include "kernels/elementwise.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <vector>

namespace chorus {
namespace {

constexpr double unit = 0x1p-24;  // relative error of one float32 rounding

std::vector<float> normal(std::size_t count, std::uint32_t seed, float spread = 1.0F) {
  std::mt19937 random(seed);
  std::normal_distribution<float> distribution(0.5F, spread);
  std::vector<float> values(count);
  for (float& value : values) value = distribution(random);
  return values;
}

constexpr int widths[] = {1, 8, 15, 16, 24, 64, 100, 896};

// Goal: within the rounding of a float32 sum of width / 16 + 4 squares. Method: double.
TEST(Elementwise, RmsNormAgreesWithDoublePrecision) {
  ThreadPool pool(2);
  for (Isa isa : available_isas()) {
    for (const int width : widths) {
      const auto n = static_cast<std::size_t>(width);
      const std::vector<float> x = normal(3 * n, 1), weight = normal(n, 2);
      std::vector<float> out(3 * n);
      rms_norm(pool, isa, x.data(), 3, width, width, weight.data(), 1e-5F, out.data(), width);
      for (std::size_t row = 0; row < 3; ++row) {
        double squares = 0;
        for (std::size_t i = 0; i < n; ++i) squares += std::pow(double{x[row * n + i]}, 2);
        const double factor = 1 / std::sqrt(squares / width + 1e-5);
        for (std::size_t i = 0; i < n; ++i) {
          const double expected = double{x[row * n + i]} * factor * double{weight[i]};
          ASSERT_NEAR(double{out[row * n + i]}, expected, std::abs(expected) * (width / 16.0 + 12) * unit)
              << name_of(isa);
        }
      }
    }
  }
}

TEST(Elementwise, RmsNormOfHeadsIsRmsNormOfEachHeadInPlace) {
  ThreadPool pool(2);
  for (Isa isa : available_isas()) {
    std::vector<float> x = normal(5 * 3 * 24, 1), expected(x.size());
    const std::vector<float> weight = normal(24, 2);
    rms_norm(pool, isa, x.data(), 15, 24, 24, weight.data(), 1e-6F, expected.data(), 24);
    rms_norm_heads(pool, isa, x.data(), 5, 3, 24, 72, weight.data(), 1e-6F);
    EXPECT_EQ(x, expected);
  }
}

TEST(Elementwise, LayerNormAgreesWithDoublePrecision) {
  ThreadPool pool(2);
  for (Isa isa : available_isas()) {
    for (const int width : widths) {
      const auto n = static_cast<std::size_t>(width);
      const std::vector<float> x = normal(n, 1), weight = normal(n, 2), bias = normal(n, 3);
      std::vector<float> out(n), unbiased(n);
      layer_norm(pool, isa, x.data(), 1, width, width, weight.data(), bias.data(), 1e-5F, out.data(), width);
      layer_norm(pool, isa, x.data(), 1, width, width, weight.data(), nullptr, 1e-5F, unbiased.data(), width);
      double mean = 0, largest = 0, variance = 0;
      for (const float value : x) mean += double{value} / width, largest = std::max(largest, std::abs(double{value}));
      for (const float value : x) variance += std::pow(double{value} - mean, 2) / width;
      const double factor = 1 / std::sqrt(variance + 1e-5);
      for (std::size_t i = 0; i < n; ++i) {
        const double expected = (double{x[i]} - mean) * factor * double{weight[i]};
        // The mean's error passes to every element as it is.
        const double bound =
            (width / 16.0 + 12) * unit * (std::abs(expected) + 2 * largest * factor * std::abs(double{weight[i]}));
        ASSERT_NEAR(double{unbiased[i]}, expected, bound) << name_of(isa) << " width " << width;
        ASSERT_NEAR(double{out[i]}, expected + double{bias[i]}, bound + std::abs(double{out[i]}) * unit);
      }
    }
  }
}

TEST(Elementwise, RotaryTurnsPairsAndLeavesTheRest) {
  ThreadPool pool(2);
  for (Isa isa : available_isas()) {
    for (const int rotary_dim : {4, 8, 24, 64}) {
      const int head_dim = rotary_dim == 24 ? 32 : rotary_dim, half = rotary_dim / 2;
      std::vector<float> table;
      for (int position = 0; position < 9; ++position) {
        for (int i = 0; i < rotary_dim; ++i) {
          const double angle = position * std::pow(10000.0, -2.0 * (i % half) / rotary_dim);
          table.push_back(static_cast<float>(i < half ? std::cos(angle) : std::sin(angle)));
        }
      }
      const std::vector<std::int32_t> positions = {3, 0, 8};
      const std::vector<float> before = normal(static_cast<std::size_t>(3 * 2 * head_dim), 4);
      std::vector<float> x = before;
      rotary(pool, isa, x.data(), 3, 2, head_dim, rotary_dim, 2 * head_dim, positions.data(), table.data());
      for (std::size_t i = 0; i < x.size(); ++i) {
        const int row = static_cast<int>(i) / (2 * head_dim), d = static_cast<int>(i) % head_dim;
        if (d >= rotary_dim) {
          ASSERT_EQ(x[i], before[i]);
          continue;
        }
        const float* angles = table.data() + positions[static_cast<std::size_t>(row)] * rotary_dim;
        const double cosine = angles[d % half], sine = angles[half + d % half];
        const double other =
            d < half ? -double{before[i + static_cast<std::size_t>(half)]} : before[i - static_cast<std::size_t>(half)];
        const double expected = double{before[i]} * cosine + other * sine;
        ASSERT_NEAR(double{x[i]}, expected, 3 * unit * (std::abs(double{before[i]} * cosine) + std::abs(other * sine)));
      }
    }
  }
}

// The exponential of all kernels shows in silu: gate / (1 + e^-gate).
TEST(Elementwise, SiluAgreesWithDoublePrecision) {
  ThreadPool pool(2);
  for (Isa isa : available_isas()) {
    constexpr int width = 4001;
    std::vector<float> gate_up(2 * width, 1.0F), out(width);
    for (int i = 0; i < width; ++i) gate_up[static_cast<std::size_t>(i)] = static_cast<float>(i - 2000) * 0.06F;
    silu_mul(pool, isa, gate_up.data(), 1, width, 2 * width, out.data(), width);
    for (int i = 0; i < width; ++i) {
      const double x = gate_up[static_cast<std::size_t>(i)];
      const double expected = x / (1 + std::exp(-x));
      ASSERT_NEAR(double{out[static_cast<std::size_t>(i)]}, expected, std::abs(expected) * 8 * unit + 1e-36) << x;
    }
  }
}

// e^x is within 2 units in the last place, the sums and the quotient add a few.
TEST(Elementwise, GeluAgreesWithDoublePrecision) {
  ThreadPool pool(2);
  for (Isa isa : available_isas()) {
    constexpr int width = 2001;
    std::vector<float> gate_up(2 * width, 2.0F), out(width);
    for (int i = 0; i < width; ++i) gate_up[static_cast<std::size_t>(i)] = static_cast<float>(i - 1000) * 0.01F;
    activate_mul(pool, isa, Activation::gelu_tanh, gate_up.data(), 1, width, 2 * width, out.data(), width);
    std::vector<float> alone(gate_up.begin(), gate_up.begin() + width);
    gelu_tanh(pool, isa, alone.data(), 1, width, width);
    for (std::size_t i = 0; i < width; ++i) {
      const double x = gate_up[i];
      const double inner = std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x);
      // Below 0 the exponent's own rounding, of |2 inner|, is the larger part.
      const double expected = x / (1 + std::exp(-2 * inner));
      ASSERT_NEAR(double{alone[i]}, expected, std::abs(expected) * (12 + 8 * std::abs(inner)) * unit + 1e-36) << x;
      ASSERT_EQ(out[i], 2 * alone[i]);
    }
  }
}

TEST(Elementwise, ClampedSwishAgreesWithDoublePrecision) {
  ThreadPool pool(2);
  for (Isa isa : available_isas()) {
    constexpr int width = 300;
    std::vector<float> gate_up = normal(2 * width, 3, 6.0F), out(width);
    activate_mul(pool, isa, Activation::clamped_swish, gate_up.data(), 1, width, 2 * width, out.data(), width);
    for (std::size_t i = 0; i < width; ++i) {
      const double gate = std::min(double{gate_up[i]}, 7.0), up = std::clamp(double{gate_up[width + i]}, -7.0, 7.0);
      const double expected = (up + 1) * gate / (1 + std::exp(-double{1.702F} * gate));
      const double bound = (std::abs(up) + 1) * std::abs(gate) * (12 + 4 * std::abs(gate)) * unit;
      ASSERT_NEAR(double{out[i]}, expected, bound) << name_of(isa);
    }
  }
}

TEST(Elementwise, SoftcapAndGatedSumsAgreeWithDoublePrecision) {
  ThreadPool pool(2);
  for (Isa isa : available_isas()) {
    std::vector<float> x = normal(3 * 100, 5, 60.0F), capped = x;
    softcap(pool, isa, 30.0F, capped.data(), 3, 100, 100);
    for (std::size_t i = 0; i < x.size(); ++i) {
      ASSERT_NEAR(double{capped[i]}, 30 * std::tanh(double{x[i]} / 30), 30 * 0x1p-22) << x[i];
    }
    const std::vector<float> gate = {-2.0F, 0.0F, 5.0F}, before = normal(3 * 100, 6);
    std::vector<float> y = before;
    add_gated(pool, isa, gate.data(), 1, x.data(), 3, 100, 100, y.data(), 100);
    for (std::size_t i = 0; i < y.size(); ++i) {
      const double added = double{x[i]} / (1 + std::exp(-double{gate[i / 100]}));
      ASSERT_NEAR(double{y[i]}, double{before[i]} + added, (8 * std::abs(added) + std::abs(double{before[i]})) * unit);
    }
  }
}

TEST(Elementwise, RowsKeepTheirBitsWhateverTheThreads) {
  for (Isa isa : available_isas()) {
    const std::vector<float> x = normal(300 * 200, 5), weight = normal(100, 6);
    std::vector<float> one(300 * 100), three(300 * 100), single(100);
    ThreadPool pool1(1), pool3(3);
    silu_mul(pool1, isa, x.data(), 300, 100, 200, one.data(), 100);
    silu_mul(pool3, isa, x.data(), 300, 100, 200, three.data(), 100);
    EXPECT_EQ(one, three);
    rms_norm(pool1, isa, one.data(), 300, 100, 100, weight.data(), 1e-5F, one.data(), 100);
    rms_norm(pool1, isa, three.data() + 100 * 77, 1, 100, 100, weight.data(), 1e-5F, single.data(), 100);
    rms_norm(pool3, isa, three.data(), 300, 100, 100, weight.data(), 1e-5F, three.data(), 100);
    EXPECT_EQ(one, three);
    EXPECT_TRUE(std::equal(single.begin(), single.end(), one.begin() + 100 * 77));
    std::vector<float> sum = one;
    add(pool3, three.data(), 300, 100, 100, sum.data(), 100);
    for (std::size_t i = 0; i < sum.size(); ++i) ASSERT_EQ(sum[i], one[i] + three[i]);
  }
}

}  // namespace
}  // namespace chorus

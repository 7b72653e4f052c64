#include "bench/arrivals.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "bench/statistics.h"

namespace chorus {
namespace {

constexpr double forever = std::numeric_limits<double>::infinity();

std::vector<double> gaps(const std::vector<double>& times) {
  std::vector<double> between;
  for (std::size_t i = 1; i < times.size(); ++i) between.push_back(times[i] - times[i - 1]);
  return between;
}

TEST(Arrivals, WithoutARateAllComeAtOnce) {
  EXPECT_EQ(arrival_times({}, 3, 1), (std::vector<double>{0, 0, 0}));
}

TEST(Arrivals, TakeAsLongAsTheRateSaysWhateverTheSeed) {
  for (const std::uint64_t seed : {0U, 1U, 99U}) {
    const auto times = arrival_times({.request_rate = 4}, 1000, seed);
    EXPECT_TRUE(std::is_sorted(times.begin(), times.end()));
    EXPECT_NEAR(times.back(), 250, 1e-9);
  }
  EXPECT_EQ(arrival_times({.request_rate = 4}, 50, 7), arrival_times({.request_rate = 4}, 50, 7));
  EXPECT_NE(arrival_times({.request_rate = 4}, 50, 7), arrival_times({.request_rate = 4}, 50, 8));
}

// A gamma distribution of shape k has a deviation of mean / sqrt(k). Of 20,000 gaps the estimate is within 5 %.
TEST(Arrivals, HaveTheDeviationOfTheirBurstiness) {
  for (const double burstiness : {0.25, 1.0, 4.0}) {
    const auto between = gaps(arrival_times({.request_rate = 10, .burstiness = burstiness}, 20'000, 3));
    EXPECT_NEAR(mean(between), 0.1, 0.002) << burstiness;
    EXPECT_NEAR(standard_deviation(between) * std::sqrt(burstiness), 0.1, 0.005) << burstiness;
  }
  const auto even = gaps(arrival_times({.request_rate = 10, .burstiness = forever}, 100, 3));
  EXPECT_NEAR(standard_deviation(even), 0, 1e-12);
}

TEST(Arrivals, RampUp) {
  Arrivals arrivals{.burstiness = forever, .ramp_up = {"linear", 1, 4}};
  EXPECT_EQ(arrival_times(arrivals, 4, 0), (std::vector<double>{1, 1.5, 1.5 + 1. / 3, 1.5 + 1. / 3 + 0.25}));
  arrivals.ramp_up.strategy = "exponential";
  const auto times = arrival_times(arrivals, 3, 0);
  EXPECT_NEAR(times[1] - times[0], 0.5, 1e-12);
  EXPECT_NEAR(times[2] - times[1], 0.25, 1e-12);
}

}  // namespace
}  // namespace chorus

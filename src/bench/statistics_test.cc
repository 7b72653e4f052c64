#include "bench/statistics.h"

#include <gtest/gtest.h>

namespace chorus {
namespace {

// numpy.percentile([1, 2, 3, 10], ...) of numpy 1.24.
TEST(Statistics, PercentilesAreNumpys) {
  const std::vector<double> values = {10, 1, 3, 2};
  EXPECT_DOUBLE_EQ(percentile(values, 0), 1);
  EXPECT_DOUBLE_EQ(percentile(values, 50), 2.5);
  EXPECT_DOUBLE_EQ(percentile(values, 90), 7.9);
  EXPECT_DOUBLE_EQ(percentile(values, 100), 10);
  EXPECT_DOUBLE_EQ(median({7}), 7);
}

TEST(Statistics, MeanOfNoneIsNought) {
  EXPECT_DOUBLE_EQ(mean({}), 0);
  EXPECT_DOUBLE_EQ(mean({1, 2, 6}), 3);
}

TEST(Statistics, ACurveHasEachPercentile) {
  const auto curve = percentile_curve({3, 1, 2}, 10);
  ASSERT_EQ(curve.size(), 101U);
  EXPECT_EQ(curve[0], (std::pair{0., 10.}));
  EXPECT_EQ(curve[50], (std::pair{50., 20.}));
  EXPECT_EQ(curve[100], (std::pair{100., 30.}));
  EXPECT_TRUE(percentile_curve({}, 1).empty());
}

// numpy.std([1, 2, 3, 10]).
TEST(Statistics, TheDeviationIsThePopulations) {
  EXPECT_DOUBLE_EQ(standard_deviation({1, 2, 3, 10}), 3.5355339059327378);
  EXPECT_DOUBLE_EQ(standard_deviation({}), 0);
}

}  // namespace
}  // namespace chorus

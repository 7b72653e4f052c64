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

}  // namespace
}  // namespace chorus

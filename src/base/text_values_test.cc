#include "base/text_values.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <limits>

namespace chorus {
namespace {

TEST(TextValues, ANumberIsTheWholeText) {
  EXPECT_EQ(number_in<int>("-12"), -12);
  EXPECT_EQ(number_in<double>("2.5e-1"), 0.25);
  EXPECT_EQ(number_in<double>("inf"), std::numeric_limits<double>::infinity());
  EXPECT_EQ(number_in<std::uint64_t>("18446744073709551615"), std::numeric_limits<std::uint64_t>::max());
  for (const char* wrong : {"", " 1", "1 ", "+1", "1x", "2147483648", "1.5"})
    EXPECT_FALSE(number_in<int>(wrong)) << wrong;
  for (const char* wrong : {"", "nan", "-nan", "1e999", "1,5", "0x1"}) EXPECT_FALSE(number_in<double>(wrong)) << wrong;
}

TEST(TextValues, PartsAreOneMoreThanSeparators) {
  using Parts = std::vector<std::string_view>;
  EXPECT_EQ(split("a,,b", ','), (Parts{"a", "", "b"}));
  EXPECT_EQ(split("", ','), (Parts{""}));
  EXPECT_EQ(split("a,", ','), (Parts{"a", ""}));
  std::string_view row = "1;2;";
  EXPECT_EQ(next_part(&row, ';'), "1");
  EXPECT_EQ(next_part(&row, ';'), "2");
  EXPECT_EQ(next_part(&row, ';'), "");
  EXPECT_EQ(row, "");
}

}  // namespace
}  // namespace chorus

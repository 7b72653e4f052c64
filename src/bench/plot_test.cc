#include "bench/plot.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace chorus {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

TEST(Plot, TicksAreRoundAndReachTheTop) {
  EXPECT_THAT(ticks_up_to(16, 5), ElementsAre(0, 5, 10, 15, 20));
  EXPECT_THAT(ticks_up_to(100, 5), ElementsAre(0, 20, 40, 60, 80, 100));
  EXPECT_THAT(ticks_up_to(1, 2), ElementsAre(0, 0.5, 1));
  EXPECT_THAT(ticks_up_to(2, 8, 1), ElementsAre(0, 1, 2));
  EXPECT_THAT(ticks_up_to(0, 1), ElementsAre(0, 1));
  for (const double high : {1e-9, 0.3, 0.9999, 7.0, 123456.0, 3e12}) {
    const auto ticks = ticks_up_to(high, 5);
    EXPECT_GE(ticks.back(), high * (1 - 1e-9)) << high;
    EXPECT_LE(ticks.size(), 7U) << high;
    EXPECT_GE(ticks.size(), 3U) << high;
  }
}

TEST(Plot, PlacesPointsBetweenTheAxes) {
  const Plot plot{
      "a <title> & \"more\"", "note", {{"panel", "x", "y", {{"line", {{0, 0}, {10, 5}}}, {"dots", {{5, 10}}, true}}}}};
  const std::string svg = svg_of(plot);
  // One panel of 960 by 380: its field is from 64 to 944, and from 328 up to 122.
  EXPECT_THAT(svg, HasSubstr("<polyline points=\"64.0,328.0 944.0,225.0 \" class=\"line s0\"/>"));
  EXPECT_THAT(svg, HasSubstr("<polyline points=\"504.0,122.0 \" class=\"line reference\"/>"));
  EXPECT_THAT(svg, HasSubstr("a &lt;title&gt; &amp; &quot;more&quot;"));
  EXPECT_THAT(svg, HasSubstr("prefers-color-scheme: dark"));
  EXPECT_THAT(svg, Not(HasSubstr("script")));
}

TEST(Plot, WithoutAPointIsAnEmptyField) {
  EXPECT_THAT(svg_of({"t", "", {{"p", "x", "y", {{"none", {}}}}}}), HasSubstr("</svg>"));
}

}  // namespace
}  // namespace chorus

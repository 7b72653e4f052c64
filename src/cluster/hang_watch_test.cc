#include "cluster/hang_watch.h"

#include <gtest/gtest.h>

namespace chorus {
namespace {

constexpr Nanoseconds ms = 1'000'000;

// Looks each 100 ms for so long at a page that says this; the first time at which it is a hang, in ms, or -1.
int hangs_after_ms(HangWatch& watch, const ProgressSample& sample, Nanoseconds* now, int for_ms) {
  for (int t = 0; t <= for_ms; t += 100, *now += 100 * ms) {
    if (watch.look(sample, *now)) return t;
  }
  return -1;
}

TEST(HangWatch, AStallInShortStepsIsAHangAfterASecond) {
  HangWatch watch;
  Nanoseconds now = 7 * ms;
  for (std::uint64_t moves = 1; moves < 50; ++moves, now += 100 * ms) {
    ASSERT_FALSE(watch.look({moves, true, 3 * ms}, now)) << "it moves";
  }
  EXPECT_EQ(hangs_after_ms(watch, {49, true, 3 * ms}, &now, 5'000), 1'000);
}

TEST(HangWatch, ALongStepMayTakeFiveTimesWhatIsExpectedWithoutAFinishedLayer) {
  HangWatch watch;
  Nanoseconds now = 0;
  watch.look({5, true, 2'000 * ms}, now);
  EXPECT_EQ(hangs_after_ms(watch, {5, true, 2'000 * ms}, &now, 60'000), 10'100);
}

TEST(HangWatch, IdleOrBeforeTheFirstStepNothingIsAHang) {
  HangWatch watch;
  Nanoseconds now = 0;
  EXPECT_EQ(hangs_after_ms(watch, {5, false, 3 * ms}, &now, 60'000), -1);
  EXPECT_EQ(hangs_after_ms(watch, {5, true, 0}, &now, 60'000), -1);
}

TEST(HangWatch, TheFirstStepAfterAPauseHasItsSecond) {
  HangWatch watch;
  Nanoseconds now = 0;
  EXPECT_EQ(hangs_after_ms(watch, {5, false, 3 * ms}, &now, 60'000), -1);
  EXPECT_EQ(hangs_after_ms(watch, {5, true, 3 * ms}, &now, 60'000), 1'100);
}

TEST(HangWatch, AWatcherThatWasStoppedItselfBlamesNobody) {
  HangWatch watch;
  ASSERT_FALSE(watch.look({5, true, 3 * ms}, 0));
  ASSERT_FALSE(watch.look({5, true, 3 * ms}, 100 * ms));
  EXPECT_FALSE(watch.look({5, true, 3 * ms}, 3'600'000 * ms));
}

}  // namespace
}  // namespace chorus

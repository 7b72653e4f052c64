#include "cluster/load_view.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

namespace chorus {
namespace {

std::uint32_t in_flight(const LoadView& view, std::size_t rank) {
  return view.loads()[rank].waiting + view.loads()[rank].running;
}

// Goal: a report does not overwrite what was sent while it was on its way (the race that unbalances vLLM's router).
// Method: a report made after 2 of 5 submissions arrives after the 5th.
TEST(LoadView, AReportKeepsWhatWasSentAfterItWasMade) {
  LoadView view(1);
  view.replica_ready(0);
  for (int n = 0; n < 5; ++n) view.submitted(0, 2);
  EXPECT_EQ(in_flight(view, 0), 10u);
  ASSERT_TRUE(view.report(0, {.waiting = 1, .running = 3, .kv_blocks_free = 7, .submissions_received = 2}));
  EXPECT_EQ(view.loads()[0].running, 3u);
  EXPECT_EQ(view.loads()[0].waiting, 1u + 3 * 2);
  EXPECT_EQ(view.loads()[0].kv_blocks_free, 7u);
  ASSERT_TRUE(view.report(0, {.waiting = 0, .running = 10, .kv_blocks_free = 0, .submissions_received = 5}));
  EXPECT_EQ(view.loads()[0].running, 10u);
  EXPECT_EQ(view.loads()[0].waiting, 0u);
}

// The same race seen by the balancer: two idle replicas, a stale "idle" report of the one that just got a burst.
TEST(LoadView, AStaleIdleReportDoesNotDrawTheNextBurst) {
  LoadView view(2);
  view.replica_ready(0);
  view.replica_ready(1);
  const auto balancer = make_least_loaded();
  std::vector<std::size_t> picked;
  for (int n = 0; n < 8; ++n) {
    const std::size_t rank = *balancer->pick({8, 16, 1, 0}, view.loads());
    view.submitted(static_cast<int>(rank), 1);
    ASSERT_TRUE(view.report(0, {.submissions_received = 0}));  // made before anything was sent
    picked.push_back(rank);
  }
  EXPECT_EQ(std::count(picked.begin(), picked.end(), 0u), 4);
}

TEST(LoadView, EndsSinceTheReportAreTakenOff) {
  LoadView view(1);
  view.replica_ready(0);
  for (int n = 0; n < 4; ++n) view.submitted(0, 1);
  ASSERT_TRUE(view.report(0, {.waiting = 1, .running = 2, .submissions_received = 3}));
  EXPECT_EQ(in_flight(view, 0), 4u);
  view.ended(0, 3);
  EXPECT_EQ(in_flight(view, 0), 1u);
  view.ended(0, 5);
  EXPECT_EQ(in_flight(view, 0), 0u);
  ASSERT_TRUE(view.report(0, {.waiting = 0, .running = 1, .submissions_received = 4}));
  EXPECT_EQ(in_flight(view, 0), 1u);
}

TEST(LoadView, RefusesReportsThatCannotBe) {
  LoadView view(1);
  view.replica_ready(0);
  view.submitted(0, 1);
  view.submitted(0, 1);
  EXPECT_FALSE(view.report(0, {.submissions_received = 3}));
  EXPECT_TRUE(view.report(0, {.submissions_received = 2}));
  EXPECT_FALSE(view.report(0, {.submissions_received = 1}));
}

TEST(LoadView, ANewIncarnationStartsFromNothing) {
  LoadView view(2);
  EXPECT_FALSE(view.loads()[1].accepting);
  view.replica_ready(1);
  view.submitted(1, 4);
  view.replica_died(1);
  EXPECT_FALSE(view.loads()[1].accepting);
  view.replica_ready(1);
  EXPECT_TRUE(view.loads()[1].accepting);
  EXPECT_EQ(in_flight(view, 1), 0u);
  EXPECT_TRUE(view.report(1, {.submissions_received = 0}));
}

}  // namespace
}  // namespace chorus

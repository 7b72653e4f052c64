#include "cluster/load_view.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <vector>

namespace chorus {
namespace {

std::uint32_t in_flight(const LoadView& view) {
  return view.load().waiting + view.load().running;
}

// Goal: a report does not overwrite what was sent while it was on its way (the race that unbalances vLLM's router).
// Method: a report made after 2 of 5 submissions arrives after the 5th.
TEST(LoadView, AReportKeepsWhatWasSentAfterItWasMade) {
  LoadView view;
  for (int n = 0; n < 5; ++n) view.submitted(2);
  EXPECT_EQ(in_flight(view), 10u);
  ASSERT_TRUE(view.report({.waiting = 1, .running = 3, .kv_blocks_free = 7, .messages_received = 2}));
  EXPECT_EQ(view.load().running, 3u);
  EXPECT_EQ(view.load().waiting, 1u + 3 * 2);
  EXPECT_EQ(view.load().kv_blocks_free, 7u);
  ASSERT_TRUE(view.report({.waiting = 0, .running = 10, .kv_blocks_free = 0, .messages_received = 5}));
  EXPECT_EQ(view.load().running, 10u);
  EXPECT_EQ(view.load().waiting, 0u);
}

// The same race seen by the balancer: two idle replicas, a stale "idle" report of the one that just got a burst.
TEST(LoadView, AStaleIdleReportDoesNotDrawTheNextBurst) {
  std::array<LoadView, 2> views;
  const auto balancer = make_least_loaded();
  std::vector<std::size_t> picked;
  for (int n = 0; n < 8; ++n) {
    std::array<ReplicaLoad, 2> loads{views[0].load(), views[1].load()};
    for (ReplicaLoad& load : loads) load.accepting = true;
    const std::size_t rank = *balancer->pick({8, 16, 1, 0}, loads);
    views[rank].submitted(1);
    ASSERT_TRUE(views[0].report({.messages_received = 0}));  // made before anything was sent
    picked.push_back(rank);
  }
  EXPECT_EQ(std::count(picked.begin(), picked.end(), 0u), 4);
}

TEST(LoadView, EndsSinceTheReportAreTakenOff) {
  LoadView view;
  for (int n = 0; n < 4; ++n) view.submitted(1);
  ASSERT_TRUE(view.report({.waiting = 1, .running = 2, .messages_received = 3}));
  EXPECT_EQ(in_flight(view), 4u);
  view.ended(3);
  EXPECT_EQ(in_flight(view), 1u);
  view.ended(5);
  EXPECT_EQ(in_flight(view), 0u);
  ASSERT_TRUE(view.report({.waiting = 0, .running = 1, .messages_received = 4}));
  EXPECT_EQ(in_flight(view), 1u);
}

TEST(LoadView, RefusesReportsThatCannotBe) {
  LoadView view;
  view.submitted(1);
  view.submitted(1);
  EXPECT_FALSE(view.report({.messages_received = 3}));
  EXPECT_TRUE(view.report({.messages_received = 2}));
  EXPECT_FALSE(view.report({.messages_received = 1}));
}

TEST(LoadView, HasSeenAllWhenAReportWasMadeAfterTheLastMessage) {
  LoadView view;
  EXPECT_TRUE(view.has_seen_all());
  view.submitted(2);
  view.aborted();
  ASSERT_TRUE(view.report({.messages_received = 0}));
  ASSERT_TRUE(view.report({.running = 2, .messages_received = 1}));
  EXPECT_FALSE(view.has_seen_all()) << "not the abort";
  EXPECT_EQ(view.load().running, 2U);
  EXPECT_FALSE(view.report({.messages_received = 3})) << "more than was sent";
  ASSERT_TRUE(view.report({.running = 5, .messages_received = 2}));
  EXPECT_TRUE(view.has_seen_all()) << "the five are others'";
}

}  // namespace
}  // namespace chorus

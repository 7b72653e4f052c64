#include "cluster/balance/load_balancer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>

namespace chorus {
namespace {

std::array<ReplicaLoad, 4> all_accepting() {
  std::array<ReplicaLoad, 4> loads;
  for (ReplicaLoad& load : loads) load.accepting = true;
  return loads;
}

RequestShape short_request() {
  return {8, 16, 1, 0};
}

std::array<int, 4> picks(LoadBalancer& balancer, std::span<const ReplicaLoad> loads, int count) {
  std::array<int, 4> picked{};
  for (int n = 0; n < count; ++n) ++picked[*balancer.pick(short_request(), loads)];
  return picked;
}

// Goal: a burst between two load reports spreads evenly. Method: loads never change; 33 picks over 4 give [9, 8, 8, 8].
TEST(LeastLoaded, SpreadsABurstOverEqualReplicas) {
  const auto balancer = make_least_loaded();
  EXPECT_EQ(picks(*balancer, all_accepting(), 33), (std::array{9, 8, 8, 8}));
}

TEST(RoundRobin, TakesTheReplicasInTurnWhateverTheirLoad) {
  auto loads = all_accepting();
  loads[2].running = 100;
  const auto balancer = make_round_robin();
  EXPECT_EQ(picks(*balancer, loads, 33), (std::array{9, 8, 8, 8}));
}

TEST(LeastLoaded, PrefersFewestInFlightThenFewestWaiting) {
  auto loads = all_accepting();
  const std::array<std::array<std::uint32_t, 2>, 4> waiting_running{{{0, 5}, {4, 0}, {0, 4}, {3, 1}}};
  for (std::size_t i = 0; i < 4; ++i) {
    loads[i].waiting = waiting_running[i][0];
    loads[i].running = waiting_running[i][1];
  }
  EXPECT_EQ(make_least_loaded()->pick(short_request(), loads), 2u);
}

// Goal: two choices keep the fullest of 64 replicas near the mean. Method: 64 x 64 sequences that do not end; by one
// random choice the fullest would hold about 64 + sqrt(2 * 64 * ln 64) = 87 of them.
TEST(PowerOfTwo, KeepsTheFullestReplicaNearTheMean) {
  std::array<ReplicaLoad, 64> loads;
  for (ReplicaLoad& load : loads) load.accepting = true;
  const auto balancer = make_power_of_two();
  for (int n = 0; n < 64 * 64; ++n) ++loads[*balancer->pick(short_request(), loads)].running;
  for (const ReplicaLoad& load : loads) {
    EXPECT_LE(load.running, 68U);
    EXPECT_GE(load.running, 56U);
  }
}

TEST(PowerOfTwo, DrawsEachPairOfReplicas) {
  const auto balancer = make_power_of_two();
  const auto counts = picks(*balancer, all_accepting(), 4000);   // equal loads: the first that was drawn
  for (const int count : counts) EXPECT_NEAR(count, 1000, 120);  // 4.4 standard deviations
  auto loads = all_accepting();
  loads[1].running = 1;  // the other of its pair has fewer, whichever that is
  EXPECT_EQ(picks(*balancer, loads, 1000)[1], 0);
}

TEST(PrefixAffinity, PrefersWhoHasThePrefixUnlessItIsMuchBusier) {
  auto loads = all_accepting();
  for (ReplicaLoad& load : loads) load.running = 40;
  loads[1].running = 54;  // 40 + 40 / 4 + 4: the most that a hit may cost
  loads[1].prefix_tokens = 160;
  loads[2].prefix_tokens = 32;
  const auto balancer = make_prefix_affinity();
  EXPECT_EQ(balancer->pick(short_request(), loads), 1U);
  loads[1].running = 55;
  EXPECT_EQ(balancer->pick(short_request(), loads), 2U);
  loads[2].running = 50;
  loads[3].prefix_tokens = 32;
  EXPECT_EQ(balancer->pick(short_request(), loads), 3U) << "among equals the emptiest";
}

TEST(PrefixAffinity, SpreadsWhatNobodyKnowsLikeLeastLoaded) {
  auto loads = all_accepting();
  const auto balancer = make_prefix_affinity();
  EXPECT_EQ(picks(*balancer, loads, 33), (std::array{9, 8, 8, 8}));
  loads[3].running = 1;
  EXPECT_EQ(picks(*balancer, loads, 30), (std::array{10, 10, 10, 0}));
}

// Goal: the stated bound holds whatever the hits. Method: all hits on one replica, nothing ends.
TEST(PrefixAffinity, BoundsTheImbalanceThatHitsCost) {
  auto loads = all_accepting();
  loads[0].prefix_tokens = 1000;
  const auto balancer = make_prefix_affinity();
  for (int n = 0; n < 4000; ++n) ++loads[*balancer->pick(short_request(), loads)].running;
  const auto fewest = std::ranges::min_element(loads, {}, &ReplicaLoad::running)->running;
  EXPECT_LE(loads[0].running, fewest + fewest / 4 + 5);
  EXPECT_GE(loads[0].running, 1100U);
}

TEST(LoadBalancer, NeverPicksAReplicaThatDoesNotAccept) {
  for (const LoadBalancerName name : every_load_balancer) {
    const auto balancer = make_load_balancer(name);
    auto loads = all_accepting();
    loads[0].accepting = loads[3].accepting = false;
    const auto picked = picks(*balancer, loads, 10);
    EXPECT_EQ(picked[1] + picked[2], 10);
    loads[2].accepting = false;
    EXPECT_EQ(balancer->pick(short_request(), loads), 1u);
    loads[1].accepting = false;
    EXPECT_EQ(balancer->pick(short_request(), loads), std::nullopt);
    EXPECT_EQ(balancer->pick(short_request(), {}), std::nullopt);
  }
}

}  // namespace
}  // namespace chorus

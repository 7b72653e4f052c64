#include "cluster/balance/load_balancer.h"

#include <gtest/gtest.h>

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

TEST(LoadBalancer, NeverPicksAReplicaThatDoesNotAccept) {
  for (const auto name : {LoadBalancerName::round_robin, LoadBalancerName::least_loaded}) {
    const auto balancer = make_load_balancer(name);
    auto loads = all_accepting();
    loads[0].accepting = loads[3].accepting = false;
    EXPECT_EQ(picks(*balancer, loads, 10), (std::array{0, 5, 5, 0}));
    loads[1].accepting = loads[2].accepting = false;
    EXPECT_EQ(balancer->pick(short_request(), loads), std::nullopt);
    EXPECT_EQ(balancer->pick(short_request(), {}), std::nullopt);
  }
}

}  // namespace
}  // namespace chorus

// What an operator does with replicas while they work, with real processes (fleet_test.cc's program is its own engine
// executable).
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <set>

#include "testing/fleet_running.h"
#include "testing/fleet_testing.h"

namespace chorus::testing_fleet {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

// Once, after so many events.
Hook once_after(std::size_t events, std::function<void(HostedFleet&)> act) {
  return [events, act, done = false](HostedFleet& fleet, const Collector& collector) mutable {
    if (done || collector.events() < events) return;
    done = true;
    act(fleet);
  };
}

TEST(FleetDrain, WhatMovesFromADrainedReplicaIsTheSameElsewhere) {
  const std::vector<Request> requests = mixed_requests(60);
  auto fleet = start_toy_fleet(toy_engine_config(2, "slow"));
  ASSERT_TRUE(fleet.ok());
  Outputs outputs;
  bool had_some = false;
  const std::string lines = log_of([&] {
    outputs = run_all(fleet->get(), requests, once_after(50, [&](HostedFleet& running) {
                        had_some = running.replicas()[0].in_flight > 0;
                        ASSERT_TRUE(running.drain(0, true).ok());
                        EXPECT_EQ(running.replicas()[0].in_flight, 0U);
                      }));
  });
  EXPECT_TRUE(had_some);
  EXPECT_EQ(outputs, direct_outputs(requests));
  EXPECT_THAT(lines, Not(HasSubstr("WARNING"))) << "nobody died";
}

TEST(FleetDrain, ADrainedReplicaGetsNothingUntilItIsResumed) {
  auto fleet = start_toy_fleet(toy_engine_config(2));
  ASSERT_TRUE(fleet.ok());
  ASSERT_TRUE((*fleet)->drain(0, false).ok());
  const std::vector<Request> requests = mixed_requests(20);
  std::set<int> ranks;
  const auto run_and_note_ranks = [&] {
    ranks.clear();
    Collector collector;
    for (const Request& request : requests) submit(fleet->get(), request, std::nullopt, &collector);
    std::vector<FleetEvent> events;
    while (collector.finished() < choices_of(requests)) {
      events.clear();
      ASSERT_TRUE((*fleet)->poll(1000, &events).ok());
      for (const FleetEvent& event : events) {
        collector.take(event.event);
        ranks.insert(event.dp_rank);
      }
    }
    EXPECT_EQ(collector.outputs(), direct_outputs(requests));
  };
  run_and_note_ranks();
  EXPECT_EQ(ranks, (std::set{1}));
  ASSERT_TRUE((*fleet)->resume(0).ok());
  run_and_note_ranks();
  EXPECT_EQ(ranks, (std::set{0, 1}));
}

TEST(FleetDrain, ARemovedReplicaEndsWhatItHasAndIsNotStartedAgain) {
  const std::vector<Request> requests = mixed_requests(60);
  auto fleet = start_toy_fleet(toy_engine_config(2, "slow"));
  ASSERT_TRUE(fleet.ok());
  const int pid = (*fleet)->replicas()[0].pid;
  Outputs outputs;
  const std::string lines = log_of([&] {
    outputs = run_all(fleet->get(), requests,
                      once_after(50, [](HostedFleet& running) { ASSERT_TRUE(running.remove(0).ok()); }));
    std::vector<FleetEvent> events;
    const Nanoseconds deadline = monotonic_now() + test_timeout;
    while ((*fleet)->replicas()[0].pid != 0 && monotonic_now() < deadline)
      ASSERT_TRUE((*fleet)->poll(10, &events).ok());
  });
  EXPECT_EQ(outputs, direct_outputs(requests));
  EXPECT_EQ(::kill(pid, 0), -1);
  EXPECT_FALSE((*fleet)->replicas()[0].alive);
  EXPECT_THAT(lines, AllOf(HasSubstr("was ended (it is to be removed); it held no requests"),
                           HasSubstr("Worker rank 0 is removed"), Not(HasSubstr("Worker rank 0 is ready"))));
  EXPECT_EQ(run_all(fleet->get(), requests), outputs) << "the other one goes on";
}

TEST(FleetDrain, RefusesRanksThatThereAreNot) {
  EngineConfig config = toy_engine_config(2);
  auto fleet = start_toy_fleet(config);
  ASSERT_TRUE(fleet.ok());
  EXPECT_THAT((*fleet)->drain(2, false).error().message, HasSubstr("no data parallel rank 2: there are 2"));
  EXPECT_FALSE((*fleet)->resume(-1).ok());
  EXPECT_FALSE((*fleet)->remove(7).ok());
}

}  // namespace
}  // namespace chorus::testing_fleet

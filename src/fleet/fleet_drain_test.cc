// What an operator does with replicas while they work, with real processes (fleet_test.cc's program is its own engine
// executable).
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <set>

#include "fleet/host.h"
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
                        ASSERT_TRUE(running.host().drain(0, true).ok());
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
  ASSERT_TRUE((*fleet)->host().drain(0, false).ok());
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
  ASSERT_TRUE((*fleet)->host().resume(0).ok());
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
                      once_after(50, [](HostedFleet& running) { ASSERT_TRUE(running.host().remove(0, false).ok()); }));
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

// Goal: an operator changes the fleet under requests, and no output changes. Method: one replica after the other is
// added, restarted and removed, all are paused for a while.
TEST(FleetDrain, WhatAnOperatorDoesChangesNoOutput) {
  const std::vector<Request> requests = mixed_requests(200);
  auto fleet = start_toy_fleet(toy_engine_config(2, "slow"));
  ASSERT_TRUE(fleet.ok());
  FleetHost& host = (*fleet)->host();
  const auto condition = [&](int rank) { return host.replicas().at(static_cast<std::size_t>(rank)).condition; };
  // Each says whether it could be done yet.
  const std::vector<std::function<bool()>> acts = {
      [&] { return host.add().value() == 2; },
      [&] { return host.restart(0).ok() && condition(0) == ReplicaCondition::restarting; },
      [&] { return host.pause(true), condition(1) != ReplicaCondition::ready; },
      [&] { return host.resume_all(), condition(1) == ReplicaCondition::ready; },
      [&] { return condition(2) == ReplicaCondition::ready && host.remove(1, true).ok(); },
      [&] { return host.pause(false), condition(2) == ReplicaCondition::draining; },
      [&] { return host.resume_all(), condition(2) == ReplicaCondition::ready; },
  };
  std::size_t done = 0;
  const std::string lines = log_of([&] {
    const Outputs outputs = run_all(fleet->get(), requests, [&](HostedFleet&, const Collector& collector) {
      const bool due = host.is_paused() || collector.events() >= 50 * (done + 1);
      if (done < acts.size() && due && acts[done]()) ++done;
    });
    EXPECT_EQ(outputs, direct_outputs(requests));
  });
  EXPECT_EQ(done, acts.size());
  const std::vector<ReplicaStatus> replicas = host.replicas();
  ASSERT_EQ(replicas.size(), 3u);
  for (const ReplicaStatus& replica : replicas) EXPECT_EQ(replica.deaths, 0u) << replica.dp_rank;
  EXPECT_THAT(lines, AllOf(HasSubstr("Worker rank 2 is ready"), HasSubstr("was ended (it is to start anew)"),
                           Not(HasSubstr("WARNING"))));
  EXPECT_THAT(host.drain(1, true).error().message, HasSubstr("data parallel rank 1 was removed"));
  ASSERT_TRUE(host.remove(2, true).ok());
  EXPECT_THAT(host.remove(0, true).error().message, HasSubstr("is the last one"));
}

TEST(FleetDrain, RefusesRanksThatThereAreNot) {
  EngineConfig config = toy_engine_config(2);
  auto fleet = start_toy_fleet(config);
  ASSERT_TRUE(fleet.ok());
  EXPECT_THAT((*fleet)->host().drain(2, false).error().message, HasSubstr("no data parallel rank 2: there are 2"));
  EXPECT_FALSE((*fleet)->host().resume(-1).ok());
  EXPECT_FALSE((*fleet)->host().remove(7, true).ok());
}

}  // namespace
}  // namespace chorus::testing_fleet

// Front ends beside their host, over real sockets to real engine processes (fleet_test.cc's program is its own engine
// executable). The host and the front ends take turns on one thread; in a server each is a process.
#include "fleet/front_end_fleet.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include "fleet/host.h"
#include "testing/fleet_running.h"
#include "testing/fleet_testing.h"

namespace chorus::testing_fleet {
namespace {

using testing::HasSubstr;

class Served {
 public:
  explicit Served(const EngineConfig& config)
      : config_(config), host(config, toy_model_config(), limits_of(config), nullptr) {
    FleetSetup setup{make_toy_weights, limits_of(config), {}, {}};
    const auto started = host.start(std::move(setup));
    EXPECT_TRUE(started.ok()) << started.error().message;
  }

  struct FrontEnd {
    ClientId client = 0;
    std::unique_ptr<Fleet> fleet;
    Collector collector;
  };
  FrontEnd add_front_end() {
    auto pair = make_socket_pair().value();
    FrontEnd added;
    added.client = host.add_client(make_socket_connection(std::move(pair.first)).value());
    added.fleet = make_front_end_fleet(config_, added.client, std::move(pair.second), {}, host.prefix_key()).value();
    return added;
  }
  // Until each of them has `choices` finished.
  void run(std::vector<FrontEnd*> front_ends, std::uint32_t choices, const std::function<void()>& each_turn = {}) {
    const Nanoseconds deadline = monotonic_now() + test_timeout;
    for (bool busy = true; busy;) {
      ASSERT_LT(monotonic_now(), deadline);
      busy = false;
      host.turn(0);
      for (FrontEnd* front_end : front_ends) {
        std::vector<FleetEvent> events;
        const auto polled = front_end->fleet->poll(1, &events);
        ASSERT_TRUE(polled.ok()) << polled.error().message;
        for (const FleetEvent& event : events) front_end->collector.take(event.event);
        busy = busy || front_end->collector.finished() < choices;
      }
      if (each_turn) each_turn();
    }
  }

 private:
  static SupervisorLimits limits_of(const EngineConfig& config) {
    SupervisorLimits limits = supervisor_limits(config);
    limits.backoff_first = 20'000'000;
    return limits;
  }
  EngineConfig config_;

 public:
  FleetHost host;
};

void submit_all(Served::FrontEnd& front_end, const std::vector<Request>& requests) {
  for (const Request& request : requests) submit(front_end.fleet.get(), request, std::nullopt, &front_end.collector);
}

TEST(FrontEndFleet, SeveralFrontEndsShareTheReplicas) {
  const std::vector<Request> requests = mixed_requests(40);
  Served served(toy_engine_config(2));
  auto one = served.add_front_end(), two = served.add_front_end();
  submit_all(one, requests);
  submit_all(two, requests);
  served.run({&one, &two}, choices_of(requests));
  EXPECT_EQ(one.collector.outputs(), direct_outputs(requests));
  EXPECT_EQ(two.collector.outputs(), direct_outputs(requests));
  EXPECT_EQ(one.fleet->replicas().size(), 2U);
  EXPECT_TRUE(one.fleet->replicas()[1].alive);
}

TEST(FrontEndFleet, AKilledReplicaChangesNoOutputOfAnyFrontEnd) {
  const std::vector<Request> requests = mixed_requests(40);
  Served served(toy_engine_config(2, "slow"));
  auto one = served.add_front_end(), two = served.add_front_end();
  submit_all(one, requests);
  submit_all(two, requests);
  int kills = 0;
  std::size_t next = 30;
  served.run({&one, &two}, choices_of(requests), [&] {
    if (kills == 3 || one.collector.events() < next) return;
    const auto replicas = served.host.replicas();
    if (!replicas[0].alive || !replicas[1].alive) return;
    ::kill(replicas[static_cast<std::size_t>(kills % 2)].pid, SIGKILL);
    ++kills;
    next = one.collector.events() + 40;
  });
  EXPECT_GE(kills, 2);
  EXPECT_EQ(one.collector.outputs(), direct_outputs(requests));
  EXPECT_EQ(two.collector.outputs(), direct_outputs(requests));
}

TEST(FrontEndFleet, AFrontEndsEndTouchesNoOther) {
  const std::vector<Request> requests = mixed_requests(40);
  Served served(toy_engine_config(2, "slow"));
  auto one = served.add_front_end(), two = served.add_front_end();
  submit_all(one, requests);
  submit_all(two, requests);
  served.run({&one, &two}, 1);
  two.fleet.reset();
  served.run({&one}, choices_of(requests));
  EXPECT_EQ(one.collector.outputs(), direct_outputs(requests));
  EXPECT_FALSE(served.host.has_client(two.client));
  // One that comes later is told of the replicas that are there.
  auto three = served.add_front_end();
  EXPECT_GT(three.client, two.client);
  submit_all(three, requests);
  served.run({&three}, choices_of(requests));
  EXPECT_EQ(three.collector.outputs(), direct_outputs(requests));
}

TEST(FrontEndFleet, ADrainedReplicaMovesWhatItHas) {
  const std::vector<Request> requests = mixed_requests(40);
  Served served(toy_engine_config(2, "slow"));
  auto one = served.add_front_end();
  submit_all(one, requests);
  bool drained = false;
  served.run({&one}, choices_of(requests), [&] {
    if (!drained && one.collector.events() > 30) drained = served.host.drain(0, true).ok();
  });
  EXPECT_TRUE(drained);
  EXPECT_EQ(one.collector.outputs(), direct_outputs(requests));
}

// Goal: front ends in other processes follow what an operator does. Method: one that comes while a replica drains gives
// it nothing; one that was there learns of an added one.
TEST(FrontEndFleet, FollowsReplicasThatComeAndDrain) {
  const std::vector<Request> requests = mixed_requests(20);
  Served served(toy_engine_config(2, "slow"));
  auto one = served.add_front_end();
  EXPECT_EQ(one.fleet->submit(mixed_requests(1)[0], 2).error().code, ErrorCode::invalid_argument);
  ASSERT_TRUE(served.host.drain(0, false).ok());
  auto two = served.add_front_end();
  ASSERT_EQ(served.host.add().value(), 2);
  submit_all(one, requests);
  submit_all(two, requests);
  served.run({&one, &two}, choices_of(requests), [&] { EXPECT_EQ(two.fleet->replicas().at(0).in_flight, 0u); });
  EXPECT_EQ(one.collector.outputs(), direct_outputs(requests));
  EXPECT_EQ(two.collector.outputs(), direct_outputs(requests));
  EXPECT_EQ(two.fleet->replicas().at(0).condition, ReplicaCondition::draining);
  const Nanoseconds deadline = monotonic_now() + test_timeout;
  const auto knows = [](auto& front_end) { return front_end.fleet->replicas().size() == 3; };
  while (!knows(one) || !knows(two)) {
    ASSERT_LT(monotonic_now(), deadline);
    served.run({&one, &two}, 0);
  }
}

TEST(FrontEndFleet, WithoutItsHostItFails) {
  Served served(toy_engine_config(1));
  auto one = served.add_front_end();
  served.host.remove_client(one.client);
  std::vector<FleetEvent> events;
  Result<void> polled;
  for (int i = 0; i < 100 && polled.ok(); ++i) polled = one.fleet->poll(10, &events);
  ASSERT_FALSE(polled.ok());
  EXPECT_THAT(polled.error().message, HasSubstr("the parent"));
}

TEST(FrontEndFleet, RefusesARankThatIsNotThere) {
  Served served(toy_engine_config(1));
  auto one = served.add_front_end();
  EXPECT_EQ(one.fleet->submit(mixed_requests(1)[0], 1).error().code, ErrorCode::invalid_argument);
}

// What an outer loop waits for.
TEST(FrontEndFleet, ItsDescriptorTellsWhenThereIsSomething) {
  const std::vector<Request> requests = mixed_requests(1);
  Served served(toy_engine_config(1));
  auto one = served.add_front_end();
  submit_all(one, requests);
  std::vector<FleetEvent> events;
  ASSERT_TRUE(one.fleet->poll(0, &events).ok());  // the news, and the request goes out
  while (events.empty()) {
    const FleetWait wait = one.fleet->wait();
    pollfd item{wait.descriptor, POLLIN, 0};
    ASSERT_EQ(::poll(&item, 1, 5000), 1);
    ASSERT_TRUE(one.fleet->poll(0, &events).ok());
  }
}

}  // namespace
}  // namespace chorus::testing_fleet

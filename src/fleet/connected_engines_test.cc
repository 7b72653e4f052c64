// Engines that the fleet did not start: threads of this program, each behind one end of a socket pair.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <atomic>
#include <functional>
#include <thread>

#include "base/clock.h"
#include "fleet/connected_replicas.h"
#include "fleet/spawned_replicas.h"
#include "testing/fleet_testing.h"
#include "worker/child_start.h"

namespace chorus::testing_fleet {
namespace {

using testing::AllOf;
using testing::HasSubstr;

void serve_toy(Connection* connection, const std::string& manner) {
  const auto served =
      serve_engine(connection, "scalar/bfloat16", [&](const EngineStart& start) -> Result<StartedReplica> {
        if (manner == "wrong")
          return fail(ErrorCode::invalid_argument, "the toy does not like dp rank {}", start.dp_rank);
        StartedReplica replica;
        replica.executor = std::make_unique<ToyExecutor>(manner);
        return replica;
      });
  EXPECT_EQ(served.ok(), manner.empty()) << (served.ok() ? "" : served.error().message);
}

// READY, and gone with the first request.
void vanish_with_the_first_request(Connection* connection) {
  ASSERT_TRUE(send_message(connection, MessageType::hello, 0, encode(HelloMessage{})).ok());
  const auto config = receive_within(connection, 10'000);
  ASSERT_TRUE(config.ok());
  EXPECT_FALSE(config->descriptor.valid()) << "the engine has its own weights";
  ASSERT_TRUE(
      send_message(connection, MessageType::ready, config->epoch, encode(ReadyMessage{512, "scalar/bfloat16"})).ok());
  EXPECT_TRUE(receive_message(connection, MessageType::client, "CLIENT").ok());
  EXPECT_TRUE(receive_message(connection, MessageType::add, "ADD").ok());
}

// READY, and not a word more until the connection is closed.
void fall_silent(Connection* connection) {
  ASSERT_TRUE(send_message(connection, MessageType::hello, 0, encode(HelloMessage{})).ok());
  const auto config = receive_within(connection, 10'000);
  ASSERT_TRUE(config.ok());
  ASSERT_TRUE(
      send_message(connection, MessageType::ready, config->epoch, encode(ReadyMessage{512, "scalar/bfloat16"})).ok());
  while (receive_within(connection, 60'000).ok()) {
  }
}

using Engine = std::function<void(Connection*)>;
Engine toy(const std::string& manner) {
  return [manner](Connection* connection) { serve_toy(connection, manner); };
}

// A fleet of these engines; an empty one is spawned by the fleet.
class ConnectedEngines : public testing::Test {
 protected:
  Result<std::unique_ptr<HostedFleet>> start(const std::vector<Engine>& engines,
                                             const std::function<Result<void>()>& check_world = {}) {
    const EngineConfig config = toy_engine_config(static_cast<int>(engines.size()));
    FleetSetup setup{make_toy_weights, supervisor_limits(config), {}, {}};
    std::vector<std::unique_ptr<Connection>> connections;
    for (const Engine& engine : engines) {
      auto& ours = connections.emplace_back();
      if (!engine) continue;
      CHORUS_TRY(auto sockets, make_socket_pair());
      CHORUS_TRY(ours, make_socket_connection(std::move(sockets.first)));
      CHORUS_TRY(auto connection, make_socket_connection(std::move(sockets.second)));
      threads_.emplace_back([engine, theirs = std::move(connection)] { engine(theirs.get()); });
    }
    setup.sources.push_back(std::make_unique<ConnectedReplicas>(std::move(connections), check_world));
    setup.sources.push_back(std::make_unique<SpawnedReplicas>());
    return start_fleet(config, toy_model_config(), std::move(setup));
  }

  std::vector<std::jthread> threads_;
};

TEST_F(ConnectedEngines, GiveWhatOneEngineGives) {
  auto fleet = start({toy(""), toy(""), {}});
  ASSERT_TRUE(fleet.ok()) << fleet.error().message;
  const std::vector<Request> requests = mixed_requests(60);
  EXPECT_EQ(run_spread(fleet->get(), requests), direct_outputs(requests));
}

TEST_F(ConnectedEngines, AllAreGivenUpWhenTheirWorldIsBroken) {
  std::atomic<bool> broken = false;
  auto fleet = start({fall_silent, fall_silent}, [&]() -> Result<void> {
    if (broken) return fail(ErrorCode::unavailable, "rank 1 is gone");
    return {};
  });
  ASSERT_TRUE(fleet.ok()) << fleet.error().message;
  ASSERT_TRUE((*fleet)->submit(mixed_requests(1)[0], std::nullopt).ok());
  std::vector<FleetEvent> events;
  ASSERT_TRUE((*fleet)->poll(600, &events).ok());
  broken = true;
  Result<void> polled;
  for (int i = 0; i < 100 && polled.ok(); ++i) polled = (*fleet)->poll(100, &events);
  ASSERT_FALSE(polled.ok());
  EXPECT_THAT(polled.error().message, HasSubstr("worker rank 1 was ended (rank 1 is gone)"));
  EXPECT_TRUE(events.empty());
}

TEST_F(ConnectedEngines, OneThatVanishesIsGivenUpAtOnceAndItsRequestsGoToTheOthers) {
  auto fleet = start({toy(""), vanish_with_the_first_request});
  ASSERT_TRUE(fleet.ok()) << fleet.error().message;
  const std::vector<Request> requests = mixed_requests(60);
  testing::internal::CaptureStderr();
  EXPECT_EQ(run_spread(fleet->get(), requests), direct_outputs(requests));
  EXPECT_THAT(testing::internal::GetCapturedStderr(),
              AllOf(HasSubstr("Worker rank 1 (pid "), HasSubstr("Worker rank 1 is given up after 0 restarts")));
  EXPECT_FALSE((*fleet)->replicas()[1].alive);
}

TEST_F(ConnectedEngines, OneThatSaysItsLastWordsIsGivenUpToo) {
  auto fleet = start({toy("fail"), toy("")});
  ASSERT_TRUE(fleet.ok()) << fleet.error().message;
  const std::vector<Request> requests = mixed_requests(60);
  testing::internal::CaptureStderr();
  EXPECT_EQ(run_spread(fleet->get(), requests), direct_outputs(requests));
  EXPECT_THAT(testing::internal::GetCapturedStderr(), HasSubstr("the toy breaks on purpose"));
}

TEST_F(ConnectedEngines, TheLastOnesEndIsTheFleets) {
  auto fleet = start({vanish_with_the_first_request, vanish_with_the_first_request});
  ASSERT_TRUE(fleet.ok()) << fleet.error().message;
  for (const Request& request : mixed_requests(4)) ASSERT_TRUE((*fleet)->submit(request, std::nullopt).ok());
  std::vector<FleetEvent> events;
  Result<void> polled;
  const Nanoseconds deadline = monotonic_now() + test_timeout;
  while (polled.ok() && monotonic_now() < deadline) polled = (*fleet)->poll(1000, &events);
  ASSERT_FALSE(polled.ok());
  EXPECT_THAT(polled.error().message, AllOf(HasSubstr("worker rank 0 "), HasSubstr("worker rank 1 ")));
}

TEST_F(ConnectedEngines, OneThatCannotStartFailsTheStartWithItsWords) {
  const auto fleet = start({toy(""), toy("wrong")});
  ASSERT_FALSE(fleet.ok());
  EXPECT_EQ(fleet.error().code, ErrorCode::invalid_argument);
  EXPECT_THAT(fleet.error().message, HasSubstr("the toy does not like dp rank 1"));
}

// As where another engine cannot start before this one has its CONFIG.
TEST(EngineOnAConnection, AShutdownBeforeTheConfigEndsItInOrder) {
  auto sockets = make_socket_pair();
  ASSERT_TRUE(sockets.ok());
  auto ours = make_socket_connection(std::move(sockets->first)),
       theirs = make_socket_connection(std::move(sockets->second));
  ASSERT_TRUE(ours.ok() && theirs.ok());
  std::jthread engine([&] { serve_toy(theirs->get(), ""); });
  ASSERT_TRUE(receive_message(ours->get(), MessageType::hello, "HELLO").ok());
  ASSERT_TRUE(send_message(ours->get(), MessageType::shutdown, 0, {}).ok());
}

// The engine's end of the connection is this test's business alone: no fleet.
TEST(EngineOnAConnection, ARequestThatComesTwiceIsItsSendersErrorAndEndsNoProcess) {
  auto sockets = make_socket_pair();
  ASSERT_TRUE(sockets.ok());
  auto ours = make_socket_connection(std::move(sockets->first)),
       theirs = make_socket_connection(std::move(sockets->second));
  ASSERT_TRUE(ours.ok() && theirs.ok());
  std::jthread engine([&] { serve_toy(theirs->get(), "twice"); });
  const auto hello = receive_message(ours->get(), MessageType::hello, "HELLO");
  ASSERT_TRUE(hello.ok());
  EngineStart start;
  start.config = toy_engine_config(1);
  start.model = toy_model_config();
  start.epoch = 1;
  ASSERT_TRUE(send_message(ours->get(), MessageType::config, 1, encode(start)).ok());
  ASSERT_TRUE(receive_message(ours->get(), MessageType::ready, "READY").ok());
  Request request = mixed_requests(1)[0];
  request.params.max_tokens = 200;
  request.params.ignore_eos = true;
  ASSERT_TRUE(send_message(ours->get(), MessageType::client, 1, encode(ClientMessage{})).ok());
  for (int i = 0; i < 2; ++i) ASSERT_TRUE(send_message(ours->get(), MessageType::add, 1, encode(request)).ok());
  auto frame = receive_within(ours->get(), 10'000);
  while (frame.ok() && static_cast<MessageType>(frame->type) != MessageType::fatal) {
    frame = receive_within(ours->get(), 10'000);
  }
  ASSERT_TRUE(frame.ok()) << frame.error().message;
  const auto words = decode_fatal(frame->payload);
  ASSERT_TRUE(words.ok());
  EXPECT_THAT(words->message, HasSubstr("request 0/1, which is here already"));
}

TEST_F(ConnectedEngines, OneWhoseFootingGoesEndsWithTheReason) {
  const Engine broken = [](Connection* connection) {
    const auto served = serve_engine(connection, "scalar/bfloat16", [](const EngineStart&) -> Result<StartedReplica> {
      return StartedReplica{nullptr, std::make_unique<ToyExecutor>(""),
                            [] { return fail(ErrorCode::unavailable, "the world is broken"); }};
    });
    EXPECT_FALSE(served.ok());
  };
  testing::internal::CaptureStderr();
  auto fleet = start({toy(""), broken});
  ASSERT_TRUE(fleet.ok()) << fleet.error().message;
  const std::vector<Request> requests = mixed_requests(20);
  EXPECT_EQ(run_spread(fleet->get(), requests), direct_outputs(requests));
  EXPECT_THAT(testing::internal::GetCapturedStderr(), HasSubstr("the world is broken"));
}

}  // namespace
}  // namespace chorus::testing_fleet

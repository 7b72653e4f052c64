// Several clients of one engine: a real process, real sockets. This test program is its own engine executable (main()
// at the end).
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "testing/toy_engine.h"
#include "worker/child_process.h"
#include "worker/child_start.h"

namespace chorus::testing_fleet {
namespace {

constexpr std::uint32_t epoch = 1;

std::vector<Request> requests_of(ClientId client, int count) {
  std::vector<Request> requests = mixed_requests(count);
  for (Request& request : requests) request.id.client = client;
  return requests;
}

// The parent of one engine process.
class Parent {
 public:
  // Until READY.
  Result<void> start(const std::string& manner) {
    CHORUS_TRY(auto sockets, make_socket_pair());
    CHORUS_TRY(control_, make_socket_connection(std::move(sockets.first)));
    CHORUS_TRY(process_, ChildProcess::spawn("chorus engine dp=0", sockets.second, engine_socket_fd));
    sockets.second = {};
    CHORUS_TRY_VOID(receive_message(control_.get(), MessageType::hello, "HELLO"));
    EngineStart start;
    start.config = toy_engine_config(1, manner);
    start.model = toy_model_config();
    start.epoch = epoch;
    CHORUS_TRY(const LoadedWeights weights, make_toy_weights(start.config, start.model, {}, 1, {}));
    start.shard_offsets = weights.shard_offsets;
    CHORUS_TRY_VOID(
        control_->send(static_cast<std::uint8_t>(MessageType::config), epoch, encode(start), weights.arena.fd()));
    CHORUS_TRY_VOID(receive_message(control_.get(), MessageType::ready, "READY"));
    return {};
  }
  // The other end of a new client's socket.
  Result<UniqueFd> announce(ClientId client) {
    CHORUS_TRY(auto sockets, make_socket_pair());
    CHORUS_TRY_VOID(control_->send(static_cast<std::uint8_t>(MessageType::client), epoch, encode(ClientMessage{client}),
                                   sockets.second.get()));
    return std::move(sockets.first);
  }
  Result<void> gone(ClientId client) {
    return send_message(control_.get(), MessageType::client_gone, epoch, encode(ClientMessage{client}));
  }
  // Until the engine says that nothing is left in it.
  void wait_until_empty() {
    const Nanoseconds deadline = monotonic_now() + test_timeout;
    while (monotonic_now() < deadline) {
      const auto frame = receive_within(control_.get(), 10'000);
      ASSERT_TRUE(frame.ok()) << frame.error().message;
      if (frame->type != static_cast<std::uint8_t>(MessageType::load)) continue;
      const auto message = decode_load(frame->payload);
      ASSERT_TRUE(message.ok());
      const EngineLoad& load = message->load;
      if (load.running + load.waiting == 0 && load.kv_blocks_free == load.kv_blocks_total) return;
    }
    FAIL() << "the engine still has work";
  }

 private:
  ChildProcess process_;
  std::unique_ptr<Connection> control_;
};

void add(Connection* client, const std::vector<Request>& requests) {
  for (const Request& request : requests) {
    ASSERT_TRUE(send_message(client, MessageType::add, epoch, encode(request)).ok());
  }
  ASSERT_TRUE(flush_within(client, 10'000).ok());
}

// Reports of the load may come first: another client's requests are computed too.
Result<void> wait_for_events(Connection* client) {
  while (true) {
    CHORUS_TRY(const Frame frame, receive_within(client, 60'000));
    if (frame.type == static_cast<std::uint8_t>(MessageType::events)) return {};
  }
}

// Takes events until that many of choices have ended.
Outputs collect(Connection* client, std::uint32_t choices) {
  Collector collector;
  while (collector.finished() < choices) {
    const auto frame = receive_within(client, 60'000);
    EXPECT_TRUE(frame.ok()) << frame.error().message;
    if (!frame.ok()) break;
    if (frame->type != static_cast<std::uint8_t>(MessageType::events)) continue;
    const auto events = decode_events(frame->payload);
    EXPECT_TRUE(events.ok());
    for (const TokenEvent& event : *events) collector.take(event);
  }
  return collector.outputs();
}

class EngineClients : public testing::Test {
 protected:
  void SetUp() override {
    const auto started = parent_.start("slow");
    ASSERT_TRUE(started.ok()) << started.error().message;
  }
  std::unique_ptr<Connection> join(ClientId client) {
    auto socket = parent_.announce(client);
    EXPECT_TRUE(socket.ok());
    auto connection = make_socket_connection(std::move(*socket));
    EXPECT_TRUE(connection.ok());
    return std::move(*connection);
  }
  // Client 2's stream is what it would be alone, whatever becomes of client 1 after its first events.
  void expect_only_the_second_goes_on() {
    const std::vector<Request> requests = requests_of(2, 60);
    EXPECT_EQ(collect(second_.get(), choices_of(requests)), direct_outputs(requests));
    parent_.wait_until_empty();
  }

  Parent parent_;
  std::unique_ptr<Connection> second_;
};

TEST_F(EngineClients, AreServedSideBySide) {
  const auto first = join(1);
  second_ = join(2);
  const std::vector<Request> requests = requests_of(1, 40);
  add(first.get(), requests);
  add(second_.get(), requests_of(2, 60));
  EXPECT_EQ(collect(first.get(), choices_of(requests)), direct_outputs(requests));
  expect_only_the_second_goes_on();
}

TEST_F(EngineClients, OneThatClosesInTheMiddleChangesNothingForTheOther) {
  auto first = join(1);
  second_ = join(2);
  add(first.get(), requests_of(1, 60));
  add(second_.get(), requests_of(2, 60));
  ASSERT_TRUE(wait_for_events(first.get()).ok());
  first.reset();
  expect_only_the_second_goes_on();
}

TEST_F(EngineClients, OneThatTheParentTakesAwayChangesNothingForTheOther) {
  const auto first = join(1);
  second_ = join(2);
  add(first.get(), requests_of(1, 60));
  add(second_.get(), requests_of(2, 60));
  ASSERT_TRUE(wait_for_events(first.get()).ok());
  ASSERT_TRUE(parent_.gone(1).ok());
  expect_only_the_second_goes_on();
}

// Client 1 in a process of its own: sends requests, says "x" when the first of their events is there, and reads no
// more.
[[noreturn]] void be_client_1(UniqueFd socket, const UniqueFd& told) {
  auto connection = make_socket_connection(std::move(socket));
  if (!connection.ok()) ::_exit(1);
  add(connection->get(), requests_of(1, 60));
  if (!wait_for_events(connection->get()).ok()) ::_exit(1);
  if (::write(told.get(), "x", 1) != 1) ::_exit(1);
  while (true) ::pause();
}

TEST_F(EngineClients, OneWhoseProcessIsKilledChangesNothingForTheOther) {
  auto socket = parent_.announce(1);
  int ends[2];
  ASSERT_TRUE(socket.ok());
  ASSERT_EQ(::pipe(ends), 0);
  UniqueFd hears(ends[0]), told(ends[1]);
  const pid_t client = ::fork();
  if (client == 0) be_client_1(std::move(*socket), told);
  *socket = UniqueFd();
  told.reset();
  second_ = join(2);
  add(second_.get(), requests_of(2, 60));
  char byte = 0;
  ASSERT_EQ(::read(hears.get(), &byte, 1), 1);
  ::kill(client, SIGKILL);
  ::waitpid(client, nullptr, 0);
  expect_only_the_second_goes_on();
}

}  // namespace
}  // namespace chorus::testing_fleet

int main(int argc, char** argv) {
  if (chorus::is_engine_process(argc, argv)) {
    return chorus::engine_process_main(chorus::engine_socket_fd, chorus::testing_fleet::start_toy);
  }
  testing::InitGoogleMock(&argc, argv);
  return RUN_ALL_TESTS();
}

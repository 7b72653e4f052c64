#include "worker/client_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include "testing/toy_engine.h"
#include "worker/child_start.h"

namespace chorus::testing_fleet {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr std::uint32_t epoch = 3;

std::vector<Request> requests_of(ClientId client, int count) {
  std::vector<Request> requests = mixed_requests(count);
  for (Request& request : requests) request.id.client = client;
  return requests;
}

// What one of the engine's clients sends and hears.
class ClientEnd {
 public:
  ClientEnd(ClientId id, std::unique_ptr<Connection> connection) : id_(id), connection_(std::move(connection)) {}

  void send(MessageType type, std::string payload) {
    ASSERT_TRUE(send_message(connection_.get(), type, epoch, std::move(payload)).ok());
  }
  void add(const std::vector<Request>& requests) {
    for (const Request& request : requests) send(MessageType::add, encode(request));
  }
  // Takes what has come.
  void hear() {
    for (auto frame = connection_->receive(); frame.ok() && frame->has_value(); frame = connection_->receive()) {
      take(**frame);
    }
  }
  void close() { connection_.reset(); }

  ClientId id() const { return id_; }
  std::uint32_t finished() const { return collector_.finished(); }
  const Outputs& outputs() const { return collector_.outputs(); }
  const std::vector<LoadMessage>& loads() const { return loads_; }
  const std::vector<std::uint64_t>& resets() const { return resets_; }  // that it was told of

 private:
  void take(const Frame& frame) {
    if (frame.type == static_cast<std::uint8_t>(MessageType::load)) {
      const auto load = decode_load(frame.payload);
      ASSERT_TRUE(load.ok());
      loads_.push_back(*load);
      return;
    }
    if (frame.type == static_cast<std::uint8_t>(MessageType::prefix_cache_reset)) {
      resets_.push_back(decode_prefix_cache_reset(frame.payload).value().number);
      return;
    }
    ASSERT_EQ(frame.type, static_cast<std::uint8_t>(MessageType::events));
    const auto events = decode_events(frame.payload);
    ASSERT_TRUE(events.ok());
    for (const TokenEvent& event : *events) {
      EXPECT_EQ(event.request.client, id_) << "it is told of another's request";
      collector_.take(event);
    }
  }

  ClientId id_;
  std::unique_ptr<Connection> connection_;
  Collector collector_;
  std::vector<LoadMessage> loads_;
  std::vector<std::uint64_t> resets_;
};

// A toy engine in this thread with clients 1, 2, ... over connections in memory, and what the parent hears.
class ClientTableTest : public testing::Test {
 protected:
  ClientTableTest()
      : core_(make_engine_core(toy_engine_config(1), toy_model_config(), std::make_unique<ToyExecutor>(""))),
        control_(make_memory_connections()),
        table_(core_.get(), control_.first.get(), epoch, ClientLimits{}) {}

  ClientEnd join(ClientId id, const ConnectionLimits& limits = {}) {
    auto ends = make_memory_connections(limits);
    EXPECT_TRUE(table_.announce(id, std::move(ends.first)).ok());
    return {id, std::move(ends.second)};
  }
  // As an engine does it.
  void step() {
    table_.serve();
    std::vector<TokenEvent> events;
    ASSERT_TRUE(core_->step(0, &events).ok());
    ASSERT_TRUE(table_.tell(&events).ok());
  }
  void run() {
    table_.serve();
    while (core_->has_work()) step();
  }
  Frame frame_of(MessageType type, std::string payload) {
    Frame frame;
    frame.type = static_cast<std::uint8_t>(type);
    frame.epoch = epoch;
    frame.payload = std::move(payload);
    return frame;
  }

  std::unique_ptr<EngineCore> core_;
  std::pair<std::unique_ptr<Connection>, std::unique_ptr<Connection>> control_;  // the engine's end first
  ClientTable table_;
};

TEST_F(ClientTableTest, EachClientHearsOfItsOwnRequestsAlone) {
  ClientEnd first = join(1), second = join(2);
  first.add(requests_of(1, 20));
  second.add(requests_of(2, 30));
  run();
  first.hear();
  second.hear();
  EXPECT_EQ(first.outputs(), direct_outputs(requests_of(1, 20)));
  EXPECT_EQ(second.outputs(), direct_outputs(requests_of(2, 30)));
}

// Goal: each client learns all that the prefix cache holds, whenever it came. Method: one is there from the beginning,
// one comes later.
TEST_F(ClientTableTest, FeedsEachClientWithThePrefixCache) {
  EngineConfig config = toy_engine_config(1);
  config.load_balancer = LoadBalancerName::prefix_affinity;
  const auto core = make_engine_core(config, toy_model_config(), std::make_unique<ToyExecutor>(""), {1, 2});
  ClientTable table(core.get(), control_.first.get(), epoch, ClientLimits{});
  const auto add = [&](ClientId id) {
    auto ends = make_memory_connections();
    EXPECT_TRUE(table.announce(id, std::move(ends.first)).ok());
    return ClientEnd(id, std::move(ends.second));
  };
  const auto compute = [&](ClientEnd* client, const std::vector<Request>& requests) {
    client->add(requests);
    table.serve();
    std::vector<TokenEvent> events;
    while (core->has_work()) {
      events.clear();
      ASSERT_TRUE(core->step(0, &events).ok());
      ASSERT_TRUE(table.tell(&events).ok());
    }
    ASSERT_TRUE(table.report(core->load()).ok());
    client->hear();
  };
  ClientEnd first = add(1);
  compute(&first, requests_of(1, 10));
  ASSERT_EQ(first.loads().size(), 1U);
  EXPECT_TRUE(first.loads()[0].prefixes.whole);
  const std::size_t cached = first.loads()[0].prefixes.changes.size();
  EXPECT_GT(cached, 5U);
  ClientEnd second = add(2);
  std::vector<Request> more = mixed_requests(20);
  more.erase(more.begin(), more.begin() + 10);
  for (Request& request : more) request.id.client = 2;
  compute(&second, more);
  first.hear();
  EXPECT_TRUE(second.loads()[0].prefixes.whole);
  EXPECT_FALSE(first.loads()[1].prefixes.whole);
  EXPECT_EQ(second.loads()[0].prefixes.changes.size(), cached + first.loads()[1].prefixes.changes.size());
}

// Goal: an engine that is faster than a front end waits for it, but not for one that has stopped reading. Method: a
// client that reads nothing, then a part, then nothing again.
TEST_F(ClientTableTest, AResetIsDoneAndTheClientThatAskedIsTold) {
  ClientEnd one = join(1), two = join(2);
  one.send(MessageType::prefix_cache_reset, encode(PrefixCacheResetMessage{1, 4}));
  table_.serve();
  for (ClientEnd* client : {&one, &two}) client->hear();
  EXPECT_THAT(one.resets(), ElementsAre(4));
  EXPECT_THAT(two.resets(), testing::IsEmpty());
  EXPECT_EQ(core_->load().prefix_cache_resets, 1U);
  EXPECT_TRUE(table_.has_unreported()) << "the count is to be reported";
  two.send(MessageType::prefix_cache_reset, encode(PrefixCacheResetMessage{1, 5}));
  table_.serve();
  EXPECT_EQ(table_.size(), 1U) << "in another's name: it is dropped";
  EXPECT_EQ(core_->load().prefix_cache_resets, 1U);
}

TEST_F(ClientTableTest, AReaderThatIsBehindIsWaitedForAndOneThatStoppedIsNot) {
  auto pair = make_socket_pair().value();
  const int small = 4096;  // of the kernel's buffer
  ASSERT_EQ(::setsockopt(pair.first.get(), SOL_SOCKET, SO_SNDBUF, &small, sizeof small), 0);
  ClientLimits limits;
  limits.behind_bytes = 2000;
  limits.reader_patience = 3'600'000'000'000;
  ClientTable table(core_.get(), control_.first.get(), epoch, limits);
  ASSERT_TRUE(table.announce(1, make_socket_connection(std::move(pair.first)).value()).ok());
  ClientEnd client(1, make_socket_connection(std::move(pair.second)).value());
  client.add(requests_of(1, 100));
  table.serve();
  while (core_->has_work() && !table.waits_for_readers(monotonic_now())) {
    std::vector<TokenEvent> events;
    ASSERT_TRUE(core_->step(0, &events).ok());
    ASSERT_TRUE(table.tell(&events).ok());
    table.serve();
  }
  ASSERT_TRUE(core_->has_work()) << "it was to fall behind";
  EXPECT_FALSE(table.waits_for_readers(monotonic_now() + limits.reader_patience)) << "it has taken nothing for so long";
  for (int i = 0; i < 100 && table.waits_for_readers(monotonic_now()); ++i) {
    client.hear();
    table.serve();
  }
  EXPECT_FALSE(table.waits_for_readers(monotonic_now()));
}

TEST_F(ClientTableTest, AClientThatClosesTakesItsOwnRequestsAlong) {
  ClientEnd first = join(1), second = join(2);
  first.add(requests_of(1, 30));
  second.add(requests_of(2, 30));
  for (int i = 0; i < 3; ++i) step();
  first.close();
  run();
  second.hear();
  EXPECT_EQ(table_.size(), 1U);
  EXPECT_EQ(second.outputs(), direct_outputs(requests_of(2, 30)));
  EXPECT_EQ(core_->load().kv_blocks_free, core_->load().kv_blocks_total);
}

TEST_F(ClientTableTest, AClientThatIsGoneIsForgottenAndItsIdIsFree) {
  ClientEnd first = join(1), second = join(2);
  first.add(requests_of(1, 10));
  second.add(requests_of(2, 10));
  step();
  table_.gone(1);
  table_.gone(7);
  run();
  second.hear();
  EXPECT_EQ(second.outputs(), direct_outputs(requests_of(2, 10)));
  EXPECT_FALSE(table_.announce(2, nullptr).ok());
}

TEST_F(ClientTableTest, WhoSendsWhatItMayNotIsDroppedAlone) {
  const Request own = requests_of(1, 1)[0], others = requests_of(2, 1)[0];
  const std::vector<std::pair<MessageType, std::string>> wrong = {
      {MessageType::add, "nonsense"},
      {MessageType::add, encode(others)},
      {MessageType::abort, encode(AbortMessage{others.id, {}})},
      {MessageType::shutdown, {}},
      {MessageType::add, encode(own)},  // a second time
  };
  for (const auto& [type, payload] : wrong) {
    ClientEnd first = join(1), second = join(2);
    first.add({own});
    second.add(requests_of(2, 10));
    first.send(type, payload);
    testing::internal::CaptureStderr();
    run();
    EXPECT_THAT(testing::internal::GetCapturedStderr(), HasSubstr("client 1 of the engine is dropped"));
    second.hear();
    EXPECT_EQ(second.outputs(), direct_outputs(requests_of(2, 10)));
    EXPECT_EQ(table_.size(), 1U);
    table_.gone(2);
  }
}

TEST_F(ClientTableTest, OneThatDoesNotReadIsDroppedAndTheOthersGoOn) {
  ClientEnd deaf = join(1, ConnectionLimits{.send_queue_bytes_max = 1000}), second = join(2);
  Request endless = requests_of(1, 1)[0];
  endless.params = {};
  endless.params.max_tokens = 100;
  endless.params.ignore_eos = true;
  deaf.add({endless});
  second.add(requests_of(2, 30));
  testing::internal::CaptureStderr();
  run();
  EXPECT_THAT(testing::internal::GetCapturedStderr(), HasSubstr("client 1 of the engine is dropped (send queue full"));
  second.hear();
  EXPECT_EQ(second.outputs(), direct_outputs(requests_of(2, 30)));
}

// The same over a socket, whose queue is the connection's and not the other end's.
TEST_F(ClientTableTest, OneThatDoesNotReadItsSocketIsDroppedAtTheBound) {
  ClientTable table(core_.get(), control_.first.get(), epoch, ClientLimits{.queue_bytes_max = 1000});
  auto sockets = make_socket_pair();
  ASSERT_TRUE(sockets.ok());
  auto theirs = make_socket_connection(std::move(sockets->first)),
       deaf = make_socket_connection(std::move(sockets->second));
  ASSERT_TRUE(theirs.ok() && deaf.ok());
  ASSERT_TRUE(table.announce(1, std::move(*theirs)).ok());
  TokenEvent event;
  event.request = {1, 1};
  event.error = std::string(100'000, 'x');
  for (int i = 0; i < 100 && table.size() > 0; ++i) {
    std::vector<TokenEvent> events(1, event);
    ASSERT_TRUE(table.tell(&events).ok());
  }
  EXPECT_EQ(table.size(), 0U);
}

TEST_F(ClientTableTest, TheLoadGoesToEachWithItsOwnMessages) {
  ClientEnd first = join(1), second = join(2);
  ASSERT_TRUE(table_.announce(0, nullptr).ok());
  first.add(requests_of(1, 2));
  second.add(requests_of(2, 3));
  table_.serve();
  ASSERT_TRUE(table_.take_shared(frame_of(MessageType::add, encode(requests_of(0, 1)[0]))).ok());
  ASSERT_TRUE(table_.report(core_->load()).ok());
  EXPECT_FALSE(table_.has_unreported());
  first.send(MessageType::abort, encode(AbortMessage{requests_of(1, 1)[0].id, {}}));
  table_.serve();
  EXPECT_TRUE(table_.has_unreported()) << "its client waits to hear that it has come";
  ASSERT_TRUE(table_.report(core_->load()).ok());
  first.hear();
  second.hear();
  ClientEnd parent(0, std::move(control_.second));
  parent.hear();
  using Messages = std::pair<ClientId, std::uint64_t>;
  ASSERT_EQ(first.loads().size(), 2U);
  EXPECT_THAT(first.loads()[0].messages_received, ElementsAre(Messages(1, 2)));
  EXPECT_THAT(first.loads()[1].messages_received, ElementsAre(Messages(1, 3)));
  ASSERT_EQ(second.loads().size(), 2U);
  EXPECT_THAT(second.loads()[1].messages_received, ElementsAre(Messages(2, 3)));
  ASSERT_EQ(parent.loads().size(), 2U);
  EXPECT_THAT(parent.loads()[0].messages_received, ElementsAre(Messages(0, 1)));
  EXPECT_EQ(first.loads()[0].load, parent.loads()[0].load);
}

TEST_F(ClientTableTest, OnTheSharedConnectionAnErrorIsTheParents) {
  ASSERT_TRUE(table_.announce(0, nullptr).ok());
  ClientEnd first = join(1);
  const Frame own = frame_of(MessageType::add, encode(requests_of(0, 1)[0]));
  EXPECT_TRUE(table_.take_shared(own).ok());
  const auto again = table_.take_shared(own);
  ASSERT_FALSE(again.ok());
  EXPECT_THAT(again.error().message, HasSubstr("request 0/1, which is here already"));
  const auto others = table_.take_shared(frame_of(MessageType::add, encode(requests_of(1, 1)[0])));
  ASSERT_FALSE(others.ok());
  EXPECT_THAT(others.error().message, HasSubstr("request 1/1 came over a connection that is not its client's"));
}

}  // namespace
}  // namespace chorus::testing_fleet

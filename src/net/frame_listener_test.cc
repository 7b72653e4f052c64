// The listener, the connector and real sockets on the loopback. The listener's loop runs in these tests' own thread.
#include "net/frame_listener.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include "net/connector.h"

namespace chorus {
namespace {

std::shared_ptr<const ClusterKey> key_of(char letter) {
  return std::make_shared<const ClusterKey>(std::string(32, letter));
}

FrameListener listen(std::shared_ptr<const ClusterKey> key, std::size_t pending_max = 64) {
  ListenOptions options;
  options.key = std::move(key);
  options.pending_max = pending_max;
  auto listener = FrameListener::listen(options);
  EXPECT_TRUE(listener.ok()) << listener.error().message;
  return std::move(*listener);
}

constexpr Nanoseconds second = 1'000'000'000;

Connector connector_to(const FrameListener& listener, std::shared_ptr<const ClusterKey> key) {
  return Connector({listener.address()}, std::move(key), monotonic_now() + 10 * second);
}

struct Met {
  std::unique_ptr<Connection> near, far;
  std::string error;
};

// Lets both sides go on until the connector is through or refused, and the listener has nothing pending.
Met meet(FrameListener* listener, Connector connector) {
  Met met;
  const Nanoseconds deadline = monotonic_now() + 10 * second;
  while (monotonic_now() < deadline && (met.error.empty() || listener->pending() > 0) && !(met.near && met.far)) {
    for (auto& accepted : listener->accept(monotonic_now())) met.far = std::move(accepted.connection);
    if (met.near || !met.error.empty()) continue;
    auto made = connector.advance(monotonic_now());
    if (!made.ok()) met.error = made.error().message;
    if (made.ok()) met.near = std::move(*made);
  }
  return met;
}

void expect_talk(Met* met) {
  ASSERT_TRUE(met->near && met->far) << met->error;
  ASSERT_TRUE(met->near->send(1, 2, "there").ok());
  ASSERT_TRUE(met->far->send(3, 4, "back").ok());
  const auto there = receive_within(met->far.get(), 5000);
  const auto back = receive_within(met->near.get(), 5000);
  ASSERT_TRUE(there.ok() && back.ok());
  EXPECT_EQ(there->payload, "there");
  EXPECT_EQ(back->payload, "back");
}

TEST(FrameListener, ConnectsWithAKeyAndWithout) {
  for (const auto& key : {key_of('k'), std::shared_ptr<const ClusterKey>()}) {
    FrameListener listener = listen(key);
    EXPECT_GT(listener.address().port(), 0);
    Met met = meet(&listener, connector_to(listener, key));
    expect_talk(&met);
    EXPECT_FALSE(met.near->send(1, 0, "x", 0).ok()) << "a descriptor over TCP";
    met.far.reset();
    EXPECT_EQ(receive_within(met.near.get(), 5000).error().code, ErrorCode::unavailable);
  }
}

TEST(FrameListener, ClosesItsDescriptorsOnExec) {
  FrameListener listener = listen(key_of('k'));
  std::vector<pollfd> items;
  listener.append_descriptors(&items);
  Met met = meet(&listener, connector_to(listener, key_of('k')));
  ASSERT_TRUE(met.near && met.far);
  for (const int fd : {items.at(0).fd, met.near->fd(), met.far->fd()}) {
    EXPECT_EQ(::fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
  }
}

TEST(FrameListener, RefusesAnotherKeyAndNoKey) {
  FrameListener listener = listen(key_of('k'));
  const Met other = meet(&listener, connector_to(listener, key_of('x')));
  EXPECT_NE(other.error.find("another cluster key"), std::string::npos) << other.error;
  const Met none = meet(&listener, connector_to(listener, nullptr));
  EXPECT_NE(none.error.find("give --cluster-key-file"), std::string::npos) << none.error;
  EXPECT_FALSE(other.far || none.far);
  EXPECT_EQ(listener.pending(), 0U);
}

TEST(FrameListener, WithoutAKeyListensOnTheLoopbackAlone) {
  for (const char* address : {"0.0.0.0", "::"}) {
    ListenOptions options;
    options.address = address;
    const auto listener = FrameListener::listen(options);
    ASSERT_FALSE(listener.ok());
    EXPECT_EQ(listener.error().code, ErrorCode::invalid_argument);
    EXPECT_NE(listener.error().message.find("--cluster-key-file"), std::string::npos) << listener.error().message;
  }
}

TEST(FrameListener, SaysWhichAddressCannotBeHad) {
  FrameListener first = listen(nullptr);
  ListenOptions options;
  options.port = first.address().port();
  const auto second_listener = FrameListener::listen(options);
  ASSERT_FALSE(second_listener.ok());
  EXPECT_NE(second_listener.error().message.find(fmt::format("127.0.0.1 port {}", options.port)), std::string::npos);
}

UniqueFd raw_connection(const FrameListener& listener) {
  auto socket = tcp::begin_connect(listener.address());
  EXPECT_TRUE(socket.ok());
  pollfd item{socket->get(), POLLOUT, 0};
  EXPECT_EQ(::poll(&item, 1, 5000), 1);
  return std::move(*socket);
}

// Waits until the listener has taken note of `count` connections.
void until_pending(FrameListener* listener, std::size_t count) {
  const Nanoseconds deadline = monotonic_now() + 10 * second;
  while (listener->pending() != count && monotonic_now() < deadline)
    EXPECT_TRUE(listener->accept(monotonic_now()).empty());
  ASSERT_EQ(listener->pending(), count);
}

bool closed_by_peer(int socket) {
  pollfd item{socket, POLLIN, 0};
  char bytes[256];
  while (::poll(&item, 1, 5000) == 1) {
    const ssize_t got = ::recv(socket, bytes, sizeof bytes, MSG_DONTWAIT);
    if (got <= 0) return got == 0 || errno == ECONNRESET;
  }
  return false;
}

TEST(FrameListener, OneThatDawdlesInTheHandshakeIsClosedAtItsDeadline) {
  FrameListener listener = listen(key_of('k'));
  const UniqueFd slow = raw_connection(listener);
  until_pending(&listener, 1);
  // A byte now and then does not buy time.
  ASSERT_EQ(::send(slow.get(), "c", 1, 0), 1);
  const auto deadline = listener.next_deadline();
  ASSERT_TRUE(deadline.has_value());
  EXPECT_TRUE(listener.accept(*deadline - 1).empty());
  EXPECT_EQ(listener.pending(), 1U);
  ASSERT_EQ(::send(slow.get(), "h", 1, 0), 1);
  EXPECT_TRUE(listener.accept(*deadline).empty());
  EXPECT_EQ(listener.pending(), 0U);
  EXPECT_FALSE(listener.next_deadline().has_value());
  EXPECT_TRUE(closed_by_peer(slow.get()));
}

TEST(FrameListener, ACrowdOfStrangersKeepsNobodyOut) {
  FrameListener listener = listen(key_of('k'), 4);
  std::vector<UniqueFd> strangers;
  for (int i = 0; i < 4; ++i) strangers.push_back(raw_connection(listener));
  until_pending(&listener, 4);
  Met met = meet(&listener, connector_to(listener, key_of('k')));
  expect_talk(&met);
  EXPECT_TRUE(closed_by_peer(strangers[0].get()));
  EXPECT_EQ(listener.pending(), 3U);
}

TEST(FrameListener, GarbageIsRefusedAfterOneMessage) {
  FrameListener listener = listen(key_of('k'));
  const UniqueFd stranger = raw_connection(listener);
  until_pending(&listener, 1);
  const std::string garbage(1 << 20, 'G');
  (void)::send(stranger.get(), garbage.data(), garbage.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  until_pending(&listener, 0);
  EXPECT_TRUE(closed_by_peer(stranger.get()));
}

// What a connector sent once, sent again to the same listener.
TEST(FrameListener, ARecordedHandshakeDoesNotOpenTheDoorTwice) {
  FrameListener listener = listen(key_of('k'));
  const UniqueFd recorder = raw_connection(listener);
  until_pending(&listener, 1);
  std::string greeting(8 + 1 + nonce_bytes, '\0');
  ASSERT_EQ(::recv(recorder.get(), greeting.data(), greeting.size(), MSG_WAITALL),
            static_cast<ssize_t>(greeting.size()));
  Handshake genuine(Handshake::Role::connector, key_of('k').get(), random_bytes(nonce_bytes));
  ASSERT_TRUE(genuine.feed(greeting).ok());
  const std::string proof = genuine.take_output();

  const UniqueFd thief = raw_connection(listener);
  until_pending(&listener, 2);
  ASSERT_EQ(::send(thief.get(), proof.data(), proof.size(), 0), static_cast<ssize_t>(proof.size()));
  until_pending(&listener, 1);
  EXPECT_TRUE(closed_by_peer(thief.get()));
  ASSERT_EQ(::send(recorder.get(), proof.data(), proof.size(), 0), static_cast<ssize_t>(proof.size()));
  const Nanoseconds deadline = monotonic_now() + 10 * second;
  std::vector<FrameListener::Accepted> accepted;
  while (accepted.empty() && monotonic_now() < deadline) accepted = listener.accept(monotonic_now());
  EXPECT_EQ(accepted.size(), 1U) << "the genuine one";
}

TEST(ConnectTo, GivesUpAtItsDeadlineWithTheReason) {
  int port = 0;
  {
    FrameListener listener = listen(nullptr);
    port = listener.address().port();
  }
  const auto connection = connect_to("127.0.0.1", port, nullptr, monotonic_now() + second / 5);
  ASSERT_FALSE(connection.ok());
  EXPECT_EQ(connection.error().code, ErrorCode::deadline_exceeded);
  EXPECT_NE(connection.error().message.find("refused"), std::string::npos) << connection.error().message;
}

TEST(ConnectTo, AListenerThatSaysNothingIsGivenUpAtTheDeadline) {
  FrameListener listener = listen(key_of('k'));  // nobody runs its loop
  const auto connection = connect_to("127.0.0.1", listener.address().port(), key_of('k'), monotonic_now() + second / 5);
  ASSERT_FALSE(connection.ok());
  EXPECT_EQ(connection.error().code, ErrorCode::deadline_exceeded);
}

}  // namespace
}  // namespace chorus

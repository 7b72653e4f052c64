#include "net/connection.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <random>
#include <thread>

namespace chorus {
namespace {

using Ends = std::pair<std::unique_ptr<Connection>, std::unique_ptr<Connection>>;

Ends socket_ends(const ConnectionLimits& limits) {
  auto sockets = make_socket_pair();
  EXPECT_TRUE(sockets.ok());
  auto first = make_socket_connection(std::move(sockets->first), limits);
  auto second = make_socket_connection(std::move(sockets->second), limits);
  EXPECT_TRUE(first.ok() && second.ok());
  return {std::move(*first), std::move(*second)};
}

// Every promise of the interface is held to both kinds.
class ConnectionTest : public testing::TestWithParam<bool> {
 protected:
  Ends make(const ConnectionLimits& limits = {}) {
    return GetParam() ? socket_ends(limits) : make_memory_connections(limits);
  }
};
INSTANTIATE_TEST_SUITE_P(Kinds, ConnectionTest, testing::Bool(),
                         [](const auto& info) { return std::string(info.param ? "Socket" : "Memory"); });

TEST_P(ConnectionTest, CarriesFramesInOrderBothWays) {
  auto [left, right] = make();
  ASSERT_TRUE(left->send(1, 5, "one").ok());
  ASSERT_TRUE(left->send(2, 6, "").ok());
  ASSERT_TRUE(right->send(3, 7, "three").ok());
  auto first = receive_within(right.get(), 1000);
  auto second = receive_within(right.get(), 1000);
  auto third = receive_within(left.get(), 1000);
  ASSERT_TRUE(first.ok() && second.ok() && third.ok());
  EXPECT_EQ(first->type, 1);
  EXPECT_EQ(first->epoch, 5U);
  EXPECT_EQ(first->payload, "one");
  EXPECT_EQ(second->payload, "");
  EXPECT_EQ(third->payload, "three");
  auto none = right->receive();
  ASSERT_TRUE(none.ok());
  EXPECT_FALSE(none->has_value());
}

TEST_P(ConnectionTest, PassesADescriptorWithItsFrame) {
  auto [left, right] = make();
  UniqueFd null_device(::open("/dev/null", O_RDWR | O_CLOEXEC));
  ASSERT_TRUE(left->send(1, 0, "before").ok());
  ASSERT_TRUE(left->send(2, 0, "with", null_device.get()).ok());
  ASSERT_TRUE(left->send(3, 0, "after").ok());
  auto before = receive_within(right.get(), 1000);
  auto with = receive_within(right.get(), 1000);
  auto after = receive_within(right.get(), 1000);
  ASSERT_TRUE(before.ok() && with.ok() && after.ok());
  EXPECT_FALSE(before->descriptor.valid());
  EXPECT_FALSE(after->descriptor.valid());
  ASSERT_TRUE(with->descriptor.valid());
  struct stat sent {};
  struct stat got {};
  ASSERT_EQ(::fstat(null_device.get(), &sent), 0);
  ASSERT_EQ(::fstat(with->descriptor.get(), &got), 0);
  EXPECT_EQ(sent.st_rdev, got.st_rdev);
  EXPECT_EQ(::fcntl(with->descriptor.get(), F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
}

// Goal: frames that are queued go out together, in order, each descriptor with its own. Method: seven at a time,
// the fourth with a descriptor.
TEST_P(ConnectionTest, QueuedFramesGoOutWithTheNextFlush) {
  auto [left, right] = make();
  UniqueFd null_device(::open("/dev/null", O_RDWR | O_CLOEXEC));
  constexpr int frames = 200;
  for (int i = 0; i < frames; ++i) {
    ASSERT_TRUE(
        left->queue(1, 0, std::string(static_cast<std::size_t>(i), 'q'), i % 7 == 3 ? null_device.get() : -1).ok());
    if (i % 7 == 6) {
      ASSERT_TRUE(left->flush().ok());
      for (int got = i - 6; got <= i; ++got) {
        const auto frame = receive_within(right.get(), 1000);
        ASSERT_TRUE(frame.ok()) << frame.error().message;
        EXPECT_EQ(frame->payload.size(), static_cast<std::size_t>(got));
        EXPECT_EQ(frame->descriptor.valid(), got % 7 == 3);
      }
    }
  }
  EXPECT_TRUE(flush_within(left.get(), 1000).ok());
  EXPECT_EQ(left->queued_bytes(), 0U);
  for (int got = frames - frames % 7; got < frames; ++got) {
    EXPECT_EQ(receive_within(right.get(), 1000)->payload.size(), static_cast<std::size_t>(got));
  }
}

TEST(SocketConnection, MoreQueuedFramesThanTheKernelTakesCrossInOrder) {
  auto [left, right] = socket_ends({});
  constexpr std::size_t frames = 3000;
  for (std::size_t i = 0; i < frames; ++i) ASSERT_TRUE(left->queue(1, 0, std::string(i % 1500, 'q')).ok());
  ASSERT_TRUE(left->flush().ok());
  EXPECT_GT(left->queued_bytes(), 0U);
  for (std::size_t i = 0; i < frames; ++i) {
    ASSERT_TRUE(left->flush().ok());
    const auto frame = receive_within(right.get(), 1000);
    ASSERT_TRUE(frame.ok()) << frame.error().message;
    EXPECT_EQ(frame->payload.size(), i % 1500);
  }
  EXPECT_EQ(left->queued_bytes(), 0U);
}

TEST_P(ConnectionTest, DeliversWhatWasSentBeforeTheCloseAndThenSaysUnavailable) {
  auto [left, right] = make();
  ASSERT_TRUE(left->send(9, 1, "last words").ok());
  left.reset();
  auto frame = receive_within(right.get(), 1000);
  ASSERT_TRUE(frame.ok());
  EXPECT_EQ(frame->payload, "last words");
  const auto closed = receive_within(right.get(), 1000);
  ASSERT_FALSE(closed.ok());
  EXPECT_EQ(closed.error().code, ErrorCode::unavailable);
  EXPECT_EQ(right->send(1, 0, "x").error().code, ErrorCode::unavailable);
}

TEST_P(ConnectionTest, RefusesTooLargeAMessageAndAFullQueue) {
  auto [left, right] = make({.payload_bytes_max = 1 << 20, .send_queue_bytes_max = 4 << 20});
  EXPECT_EQ(left->send(1, 0, std::string((1 << 20) + 1, 'x')).error().code, ErrorCode::invalid_argument);
  int accepted = 0;
  Result<void> sent;
  while ((sent = left->send(1, 0, std::string(1 << 20, 'x'))).ok()) ASSERT_LT(++accepted, 100);
  EXPECT_EQ(sent.error().code, ErrorCode::resource_exhausted);
  // Nothing of the refused one was queued: what was accepted arrives whole, and there is room again.
  for (int i = 0; i < accepted; ++i) {
    static_cast<void>(left->flush().ok());
    auto frame = receive_within(right.get(), 0);
    while (!frame.ok() && frame.error().code == ErrorCode::deadline_exceeded) {
      ASSERT_TRUE(left->flush().ok());
      frame = receive_within(right.get(), 0);
    }
    ASSERT_TRUE(frame.ok());
    EXPECT_EQ(frame->payload.size(), std::size_t{1} << 20);
  }
  EXPECT_TRUE(left->send(1, 0, "room").ok());
}

TEST_P(ConnectionTest, AWaitEndsAtItsDeadline) {
  auto [left, right] = make();
  const auto nothing = receive_within(right.get(), 20);
  ASSERT_FALSE(nothing.ok());
  EXPECT_EQ(nothing.error().code, ErrorCode::deadline_exceeded);
}

TEST(SocketConnection, LargeFramesCrossInPiecesBothWaysAtOnce) {
  auto [left, right] = socket_ends({});
  const std::string large(std::size_t{24} << 20, 'q');
  auto talk = [&](Connection* connection) {
    for (int i = 0; i < 3; ++i) EXPECT_TRUE(connection->send(static_cast<std::uint8_t>(i), 0, large).ok());
    for (int i = 0; i < 3; ++i) {
      auto frame = receive_within(connection, 30000);
      ASSERT_TRUE(frame.ok()) << frame.error().message;
      EXPECT_EQ(frame->type, i);
      EXPECT_EQ(frame->payload, large);
    }
    EXPECT_TRUE(flush_within(connection, 30000).ok());
  };
  std::thread other([&, peer = right.get()] { talk(peer); });
  talk(left.get());
  other.join();
}

TEST(SocketConnection, GarbageIsRefusedWithAReason) {
  auto sockets = make_socket_pair();
  ASSERT_TRUE(sockets.ok());
  auto connection = make_socket_connection(std::move(sockets->first));
  ASSERT_TRUE(connection.ok());
  ASSERT_EQ(::send(sockets->second.get(), "\xFF\xFF\xFF\xFFgarbage", 11, 0), 11);
  const auto frame = receive_within(connection->get(), 1000);
  ASSERT_FALSE(frame.ok());
  EXPECT_EQ(frame.error().code, ErrorCode::invalid_argument);
  EXPECT_NE(frame.error().message.find("the limit is"), std::string::npos);
}

TEST(SocketConnection, NamesAFrameCutOffByTheClose) {
  auto sockets = make_socket_pair();
  ASSERT_TRUE(sockets.ok());
  auto connection = make_socket_connection(std::move(sockets->first));
  ASSERT_TRUE(connection.ok());
  const std::string half = encode_frame_header(1, 0, 100, false) + "only this";
  ASSERT_EQ(::send(sockets->second.get(), half.data(), half.size(), 0), static_cast<ssize_t>(half.size()));
  sockets->second.reset();
  const auto frame = receive_within(connection->get(), 1000);
  ASSERT_FALSE(frame.ok());
  EXPECT_EQ(frame.error().code, ErrorCode::unavailable);
  EXPECT_NE(frame.error().message.find("in the middle"), std::string::npos);
}

TEST(SocketConnection, AnAnnouncedDescriptorThatIsMissingIsRefused) {
  auto sockets = make_socket_pair();
  ASSERT_TRUE(sockets.ok());
  auto connection = make_socket_connection(std::move(sockets->first));
  ASSERT_TRUE(connection.ok());
  const std::string frame = encode_frame_header(1, 0, 0, true);
  ASSERT_EQ(::send(sockets->second.get(), frame.data(), frame.size(), 0), static_cast<ssize_t>(frame.size()));
  EXPECT_EQ(receive_within(connection->get(), 1000).error().code, ErrorCode::invalid_argument);
}

// Goal: whatever bytes come, the connection gives frames or one error, and never crashes. Seeded.
TEST(SocketConnection, MutatedBytesNeverCrash) {
  std::mt19937 random(3);
  for (int round = 0; round < 300; ++round) {
    auto sockets = make_socket_pair();
    ASSERT_TRUE(sockets.ok());
    auto connection =
        make_socket_connection(std::move(sockets->first), {.payload_bytes_max = 4096, .send_queue_bytes_max = 4096});
    ASSERT_TRUE(connection.ok());
    std::string stream;
    for (int i = 0; i < 10; ++i) {
      const std::string payload(random() % 300, 'p');
      const auto type = static_cast<std::uint8_t>(random() % 128);
      stream += encode_frame_header(type, static_cast<std::uint32_t>(random()), payload.size(), false) + payload;
    }
    for (auto i = random() % 8; i > 0; --i) stream[random() % stream.size()] = static_cast<char>(random());
    ASSERT_EQ(::send(sockets->second.get(), stream.data(), stream.size(), 0), static_cast<ssize_t>(stream.size()));
    sockets->second.reset();
    int frames = 0;
    while (receive_within(connection->get(), 1000).ok()) ASSERT_LT(++frames, 2000);
    EXPECT_FALSE((*connection)->receive().ok());
  }
}

}  // namespace
}  // namespace chorus

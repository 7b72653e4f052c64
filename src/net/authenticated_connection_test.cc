#include "net/authenticated_connection.h"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <functional>

namespace chorus {
namespace {

const SessionKeys keys_left{std::string(32, 'x'), std::string(32, 'y')};
const SessionKeys keys_right{keys_left.receiving, keys_left.sending};

// Two authenticated ends with somebody in the middle, who sees whole frames.
struct Wire {
  std::unique_ptr<Connection> left, right;            // the ends
  std::unique_ptr<Connection> left_wire, right_wire;  // what the one in the middle holds

  explicit Wire(const ConnectionLimits& limits = {}) {
    auto first = make_memory_connections(with_room_for_tags(limits));
    auto second = make_memory_connections(with_room_for_tags(limits));
    left = make_authenticated_connection(std::move(first.first), keys_left);
    left_wire = std::move(first.second);
    right_wire = std::move(second.first);
    right = make_authenticated_connection(std::move(second.second), keys_right);
  }
  Frame take() {
    auto frame = receive_within(left_wire.get(), 0);
    EXPECT_TRUE(frame.ok());
    return frame.ok() ? std::move(*frame) : Frame{};
  }
  void give(const Frame& frame) { EXPECT_TRUE(right_wire->send(frame.type, frame.epoch, frame.payload).ok()); }
  bool breaks() {
    const auto got = right->receive();
    return !got.ok() && got.error().code == ErrorCode::invalid_argument && !right->send(1, 0, "x").ok();
  }
};

TEST(AuthenticatedConnection, CarriesFramesBothWays) {
  auto ends = make_memory_connections(with_room_for_tags({}));
  const auto left = make_authenticated_connection(std::move(ends.first), keys_left);
  const auto right = make_authenticated_connection(std::move(ends.second), keys_right);
  for (std::uint8_t i = 0; i < 20; ++i) {
    ASSERT_TRUE(left->send(i, i * 7U, std::string(i, 'p')).ok());
    ASSERT_TRUE(right->send(i, 3, "back").ok());
  }
  for (std::uint8_t i = 0; i < 20; ++i) {
    const auto there = receive_within(right.get(), 0);
    const auto back = receive_within(left.get(), 0);
    ASSERT_TRUE(there.ok() && back.ok());
    EXPECT_EQ(there->type, i);
    EXPECT_EQ(there->epoch, i * 7U);
    EXPECT_EQ(there->payload, std::string(i, 'p'));
    EXPECT_EQ(back->payload, "back");
  }
}

TEST(AuthenticatedConnection, EveryFlippedBitOfAFrameBreaksIt) {
  const std::string payload = "the tokens";
  const std::size_t bits = 8 * (payload.size() + tag_bytes) + 7 + 32;  // payload and tag, type, epoch
  for (std::size_t bit = 0; bit < bits; ++bit) {
    Wire wire;
    ASSERT_TRUE(wire.left->send(5, 9, payload).ok());
    Frame frame = wire.take();
    if (bit < 8 * frame.payload.size()) {
      frame.payload[bit / 8] = static_cast<char>(frame.payload[bit / 8] ^ (1 << (bit % 8)));
    } else if (const std::size_t rest = bit - 8 * frame.payload.size(); rest < 7) {
      frame.type = static_cast<std::uint8_t>(frame.type ^ (1 << rest));
    } else {
      frame.epoch ^= 1U << (rest - 7);
    }
    wire.give(frame);
    ASSERT_TRUE(wire.breaks()) << "bit " << bit;
  }
}

// The raw bytes on a real socket, the length included: no frame comes out, and the end of the stream breaks it.
TEST(AuthenticatedConnection, EveryFlippedBitOnTheWireBreaksIt) {
  auto recorded = make_socket_pair();
  ASSERT_TRUE(recorded.ok());
  auto plain = make_socket_connection(std::move(recorded->first));
  ASSERT_TRUE(plain.ok());
  const auto sender = make_authenticated_connection(std::move(*plain), keys_left);
  ASSERT_TRUE(sender->send(5, 9, "the tokens").ok());
  std::string bytes(1024, '\0');
  bytes.resize(static_cast<std::size_t>(::recv(recorded->second.get(), bytes.data(), bytes.size(), 0)));
  for (std::size_t bit = 0; bit <= 8 * bytes.size(); ++bit) {
    std::string changed = bytes;
    if (bit < 8 * bytes.size()) changed[bit / 8] = static_cast<char>(changed[bit / 8] ^ (1 << (bit % 8)));
    auto pair = make_socket_pair();
    ASSERT_TRUE(pair.ok());
    auto inner = make_socket_connection(std::move(pair->first), with_room_for_tags({}));
    ASSERT_TRUE(inner.ok());
    const auto receiver = make_authenticated_connection(std::move(*inner), keys_right);
    ASSERT_EQ(::send(pair->second.get(), changed.data(), changed.size(), 0), static_cast<ssize_t>(changed.size()));
    pair->second.reset();
    const auto got = receive_within(receiver.get(), 1000);
    // The last round changes nothing: this test can see a good frame.
    ASSERT_EQ(got.ok(), bit == 8 * bytes.size()) << "bit " << bit;
  }
}

TEST(AuthenticatedConnection, ARepeatedALostAndADisplacedFrameBreakIt) {
  const std::vector<std::vector<std::size_t>> orders = {{0, 0}, {1}, {0, 2}, {1, 0}};
  for (const auto& order : orders) {
    Wire wire;
    std::vector<Frame> frames;
    for (const char* payload : {"one", "two", "three"}) {
      ASSERT_TRUE(wire.left->send(1, 1, payload).ok());
      frames.push_back(wire.take());
    }
    for (const std::size_t index : order) wire.give(frames[index]);
    if (order.front() == 0) {
      const auto good = wire.right->receive();
      ASSERT_TRUE(good.ok() && good->has_value());
    }
    EXPECT_TRUE(wire.breaks());
  }
}

TEST(AuthenticatedConnection, AFrameCutShortOrWithoutATagBreaksIt) {
  for (std::size_t bytes = 0; bytes < tag_bytes + 3; ++bytes) {
    Wire wire;
    ASSERT_TRUE(wire.left->send(1, 1, "one").ok());
    Frame frame = wire.take();
    frame.payload.resize(bytes);
    wire.give(frame);
    EXPECT_TRUE(wire.breaks()) << bytes;
  }
}

TEST(AuthenticatedConnection, AFrameSentBackOrFromAnotherSessionBreaksIt) {
  Wire wire;
  ASSERT_TRUE(wire.left->send(1, 1, "one").ok());
  const Frame frame = wire.take();
  ASSERT_TRUE(wire.left_wire->send(frame.type, frame.epoch, frame.payload).ok());
  EXPECT_FALSE(wire.left->receive().ok());

  auto ends = make_memory_connections(with_room_for_tags({}));
  const auto other =
      make_authenticated_connection(std::move(ends.second), {std::string(32, 'x'), std::string(32, 'z')});
  ASSERT_TRUE(ends.first->send(frame.type, frame.epoch, frame.payload).ok());
  EXPECT_FALSE(other->receive().ok());
}

TEST(AuthenticatedConnection, AFullQueueUsesNoNumber) {
  auto pair = make_socket_pair();
  ASSERT_TRUE(pair.ok());
  const ConnectionLimits limits{.payload_bytes_max = 1 << 20, .send_queue_bytes_max = 2 << 20};
  auto first = make_socket_connection(std::move(pair->first), with_room_for_tags(limits));
  auto second = make_socket_connection(std::move(pair->second), with_room_for_tags(limits));
  ASSERT_TRUE(first.ok() && second.ok());
  const auto left = make_authenticated_connection(std::move(*first), keys_left);
  const auto right = make_authenticated_connection(std::move(*second), keys_right);
  int accepted = 0;
  Result<void> sent;
  while ((sent = left->send(1, 0, std::string(1 << 20, 'x'))).ok()) ASSERT_LT(++accepted, 100);
  EXPECT_EQ(sent.error().code, ErrorCode::resource_exhausted);
  EXPECT_EQ(left->send(1, 0, std::string((1 << 20) + 1, 'x')).error().code, ErrorCode::invalid_argument);
  for (int i = 0; i < accepted; ++i) {
    auto frame = receive_within(right.get(), 0);
    while (!frame.ok() && frame.error().code == ErrorCode::deadline_exceeded) {
      ASSERT_TRUE(left->flush().ok());
      frame = receive_within(right.get(), 0);
    }
    ASSERT_TRUE(frame.ok()) << frame.error().message;
  }
  ASSERT_TRUE(left->send(2, 0, "after").ok());
  const auto after = receive_within(right.get(), 1000);
  ASSERT_TRUE(after.ok()) << after.error().message;
  EXPECT_EQ(after->payload, "after");
}

TEST(AuthenticatedConnection, RefusesDescriptors) {
  Wire wire;
  EXPECT_EQ(wire.left->send(1, 0, "x", 0).error().code, ErrorCode::invalid_argument);
}

}  // namespace
}  // namespace chorus

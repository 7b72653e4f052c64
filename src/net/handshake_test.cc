#include "net/handshake.h"

#include <gtest/gtest.h>

#include <functional>

namespace chorus {
namespace {

const ClusterKey key_a(std::string(32, 'a'));
const ClusterKey key_b(std::string(32, 'b'));
const std::string nonce_l(nonce_bytes, 'l');
const std::string nonce_c(nonce_bytes, 'c');

// Who said what, 0 to 2, on its way: to be changed or looked at.
using OnTheWay = std::function<void(int index, std::string* message)>;

struct Talk {
  Handshake listener;
  Handshake connector;
  std::string listener_error = {};
  std::string connector_error = {};

  Talk(const ClusterKey* listener_key, const ClusterKey* connector_key)
      : listener(Handshake::Role::listener, listener_key, nonce_l),
        connector(Handshake::Role::connector, connector_key, nonce_c) {}

  void run(const OnTheWay& on_the_way = {}) {
    for (int index = 0; index < 3; ++index) {
      Handshake& from = index % 2 == 0 ? listener : connector;
      Handshake& to = index % 2 == 0 ? connector : listener;
      std::string message = from.take_output();
      if (on_the_way) on_the_way(index, &message);
      std::string& error = index % 2 == 0 ? connector_error : listener_error;
      if (!error.empty() || message.empty() || message.size() != to.bytes_wanted()) return;
      const auto fed = to.feed(message);
      if (!fed.ok()) error = fed.error().message;
    }
  }
  bool both_done() const {
    return listener.done() && connector.done() && listener_error.empty() && connector_error.empty();
  }
};

TEST(Handshake, WithTheSameKeyGivesBothTheSameSessionKeys) {
  Talk talk(&key_a, &key_a);
  talk.run();
  ASSERT_TRUE(talk.both_done()) << talk.listener_error << talk.connector_error;
  const auto left = talk.listener.session_keys();
  const auto right = talk.connector.session_keys();
  ASSERT_TRUE(left && right);
  EXPECT_EQ(left->sending, right->receiving);
  EXPECT_EQ(left->receiving, right->sending);
  EXPECT_NE(left->sending, left->receiving);
}

TEST(Handshake, SessionKeysAreNewWithEachNonce) {
  Talk talk(&key_a, &key_a);
  talk.run();
  Talk other(&key_a, &key_a);
  other.connector = Handshake(Handshake::Role::connector, &key_a, std::string(nonce_bytes, 'd'));
  other.run();
  ASSERT_TRUE(talk.both_done() && other.both_done());
  EXPECT_NE(talk.listener.session_keys()->sending, other.listener.session_keys()->sending);
}

TEST(Handshake, WithoutAKeyOnEitherSideProvesNothing) {
  Talk talk(nullptr, nullptr);
  talk.run();
  ASSERT_TRUE(talk.both_done());
  EXPECT_FALSE(talk.listener.session_keys().has_value());
}

TEST(Handshake, AnotherKeyIsRefusedOnBothSides) {
  Talk talk(&key_a, &key_b);
  talk.run();
  EXPECT_NE(talk.listener_error.find("another cluster key"), std::string::npos);
  EXPECT_NE(talk.connector_error.find("another cluster key"), std::string::npos);
}

TEST(Handshake, AKeyOnOneSideIsRefusedAndBothLearnWhy) {
  Talk without(&key_a, nullptr);
  without.run();
  EXPECT_NE(without.connector_error.find("this process has none: give --cluster-key-file"), std::string::npos);
  EXPECT_NE(without.listener_error.find("the peer has no cluster key"), std::string::npos);
  Talk with(nullptr, &key_a);
  with.run();
  EXPECT_NE(with.connector_error.find("the peer has no cluster key"), std::string::npos);
  EXPECT_NE(with.listener_error.find("this process has none"), std::string::npos);
}

// Each bit of each message, with a key: at least one side must refuse, and never are both done.
TEST(Handshake, EveryFlippedBitBreaksIt) {
  for (int message = 0; message < 3; ++message) {
    for (std::size_t bit = 0; bit < 8 * handshake_bytes_max; ++bit) {
      Talk talk(&key_a, &key_a);
      bool flipped = false;
      talk.run([&](int index, std::string* bytes) {
        if (index != message || bit / 8 >= bytes->size()) return;
        (*bytes)[bit / 8] = static_cast<char>((*bytes)[bit / 8] ^ (1 << (bit % 8)));
        flipped = true;
      });
      ASSERT_NE(flipped, talk.both_done()) << "message " << message << " bit " << bit;
    }
  }
}

TEST(Handshake, AnOldRecordingIsWorthNothing) {
  std::string recorded;
  Talk talk(&key_a, &key_a);
  talk.run([&](int index, std::string* bytes) {
    if (index == 1) recorded = *bytes;
  });
  ASSERT_TRUE(talk.both_done());
  Handshake fresh(Handshake::Role::listener, &key_a, std::string(nonce_bytes, 'n'));
  ASSERT_EQ(recorded.size(), fresh.bytes_wanted());
  EXPECT_FALSE(fresh.feed(recorded).ok());
}

// A stranger sends a listener's own bytes back to it, and a connector's to it.
TEST(Handshake, OnesOwnProofIsNoneOfThePeers) {
  Handshake listener(Handshake::Role::listener, &key_a, nonce_l);
  Handshake connector(Handshake::Role::connector, &key_a, nonce_l);  // the same nonce: nothing but the role differs
  const std::string greeting = listener.take_output();
  ASSERT_TRUE(connector.feed(greeting).ok());
  const std::string proof = connector.take_output().substr(greeting.size());
  EXPECT_FALSE(connector.feed("\x01" + proof).ok());

  Handshake other(Handshake::Role::listener, &key_a, nonce_l);
  EXPECT_FALSE(other.feed(greeting + std::string(tag_bytes, '\0')).ok());
}

TEST(Handshake, AStrangerGetsNoProofFromTheListener) {
  Handshake listener(Handshake::Role::listener, &key_a, nonce_l);
  Handshake stranger(Handshake::Role::connector, &key_b, nonce_c);
  ASSERT_TRUE(stranger.feed(listener.take_output()).ok());
  EXPECT_FALSE(listener.feed(stranger.take_output()).ok());
  EXPECT_EQ(listener.take_output(), std::string(1 + tag_bytes, '\0'));
}

}  // namespace
}  // namespace chorus

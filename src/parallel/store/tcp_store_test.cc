#include "parallel/store/tcp_store.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>

#include <random>

#include "net/tcp.h"
#include "parallel/store/store_check.h"
#include "parallel/store/tcp_store_protocol.h"
#include "parallel/transport/tcp_socket.h"

namespace chorus {
namespace {

constexpr int long_ms = 20'000;

std::unique_ptr<TcpStoreServer> start_server() {
  auto server = TcpStoreServer::start("127.0.0.1", 0);
  EXPECT_TRUE(server.ok());
  return std::move(server).value();
}

UniqueFd connect_raw(const TcpStoreServer& server) {
  return std::move(connect_tcp("127.0.0.1", server.port(), deadline_after(long_ms))).value();
}

std::string validation() {
  std::string bytes(1, static_cast<char>(StoreRequest::validate));
  append_store_value(&bytes, tcp_store_mark);
  return bytes;
}

// Waits until the server closes the connection.
bool is_cut_off(int socket) {
  char byte;
  const auto received = receive_all(socket, &byte, 1, deadline_after(long_ms), "server");
  return !received.ok() && received.error().code == ErrorCode::unavailable;
}

TEST(TcpStoreServer, CutsOffWhatIsNoRequest) {
  const auto server = start_server();
  std::string too_long = validation() + static_cast<char>(StoreRequest::get);
  append_store_value<std::uint64_t>(&too_long, std::uint64_t{1} << 40);
  std::string too_many = validation() + static_cast<char>(StoreRequest::wait);
  append_store_value<std::uint64_t>(&too_many, std::uint64_t{1} << 40);
  std::string not_there = validation() + static_cast<char>(StoreRequest::get);
  append_store_text(&not_there, "/missing");
  for (const std::string& bytes : {std::string("GET / HTTP/1.1\r\n\r\n"), std::string("\0\1\2\3\4", 5),
                                   validation() + '\x63', too_long, too_many, not_there}) {
    const UniqueFd socket = connect_raw(*server);
    ASSERT_TRUE(send_all(socket.get(), bytes, deadline_after(long_ms), "server").ok());
    EXPECT_TRUE(is_cut_off(socket.get()));
  }
  auto store = connect_tcp_store("127.0.0.1", server->port(), long_ms);
  ASSERT_TRUE(store.ok());
  EXPECT_TRUE((*store)->set("key", "1", long_ms).ok());
}

// Goal: requests may come in pieces of any size. Method: byte by byte, with an answer at the end.
TEST(TcpStoreServer, TakesARequestByteByByte) {
  const auto server = start_server();
  const UniqueFd socket = connect_raw(*server);
  std::string bytes = validation() + static_cast<char>(StoreRequest::set);
  append_store_text(&bytes, "/key");
  append_store_text(&bytes, "value");
  bytes += static_cast<char>(StoreRequest::multi_get);
  append_store_value<std::uint64_t>(&bytes, 1);
  append_store_text(&bytes, "/key");
  for (const char byte : bytes) {
    ASSERT_TRUE(send_all(socket.get(), {&byte, 1}, deadline_after(long_ms), "server").ok());
  }
  std::string answer(13, '\0'), expected;
  ASSERT_TRUE(receive_all(socket.get(), answer.data(), answer.size(), deadline_after(long_ms), "server").ok());
  append_store_text(&expected, "value");
  EXPECT_EQ(answer, expected);
}

// Goal: no sequence of bytes stops the server. Method: seeded noise after a valid beginning, then a client that works.
TEST(TcpStoreServer, SurvivesNoise) {
  const auto server = start_server();
  std::mt19937 random(7);
  for (int round = 0; round < 200; ++round) {
    const UniqueFd socket = connect_raw(*server);
    std::string bytes = validation();
    for (int i = 0; i < 60; ++i) bytes += static_cast<char>(i % 9 == 0 ? random() % 14 : random() % 3);
    (void)send_all(socket.get(), bytes, deadline_after(long_ms), "server");
  }
  auto store = connect_tcp_store("127.0.0.1", server->port(), long_ms);
  ASSERT_TRUE(store.ok());
  EXPECT_EQ(*(*store)->add("n", 1, long_ms), 1);
}

std::shared_ptr<const ClusterKey> key_of(char letter) {
  return std::make_shared<ClusterKey>(std::string(40, letter));
}

std::unique_ptr<TcpStoreServer> start_guarded_server() {
  auto server = TcpStoreServer::start("127.0.0.1", 0, key_of('k'));
  EXPECT_TRUE(server.ok());
  return std::move(server).value();
}

// Goal: who has not the key gets nothing and changes nothing. Method: a client with another key, one with none, a
// stranger that sends a whole request; then one that belongs there.
TEST(TcpStoreServer, WithAKeyTakesOnlyThoseThatHaveIt) {
  const auto server = start_guarded_server();
  const auto other = connect_tcp_store("127.0.0.1", server->port(), long_ms, key_of('o'));
  ASSERT_FALSE(other.ok());
  EXPECT_EQ(other.error().code, ErrorCode::invalid_argument);
  EXPECT_NE(other.error().message.find("another cluster key"), std::string::npos) << other.error().message;
  EXPECT_FALSE(connect_tcp_store("127.0.0.1", server->port(), long_ms).ok());
  const UniqueFd socket = connect_raw(*server);
  std::string set = validation() + static_cast<char>(StoreRequest::set);
  append_store_text(&set, "/key");
  append_store_text(&set, std::string(64, 'x'));
  ASSERT_TRUE(send_all(socket.get(), set, deadline_after(long_ms), "server").ok());
  std::string answer(41 + 33, '\0');  // the listener's greeting, then its refusal
  ASSERT_TRUE(receive_all(socket.get(), answer.data(), answer.size(), deadline_after(long_ms), "server").ok());
  EXPECT_TRUE(is_cut_off(socket.get()));
  auto store = connect_tcp_store("127.0.0.1", server->port(), long_ms, key_of('k'));
  ASSERT_TRUE(store.ok()) << store.error().message;
  EXPECT_FALSE(*(*store)->check(std::vector<std::string>{"key"}, long_ms));
}

// Frames hold less than the largest value.
TEST(TcpStoreServer, WithAKeyTakesTheLargestValue) {
  const auto server = start_guarded_server();
  const auto store = std::move(connect_tcp_store("127.0.0.1", server->port(), long_ms, key_of('k'))).value();
  std::string value(store_value_bytes_max, 'v');
  for (std::size_t i = 0; i < value.size(); i += 997) value[i] = static_cast<char>(i);
  ASSERT_TRUE(store->set("key", value, long_ms).ok());
  EXPECT_TRUE(*store->get("key", long_ms) == value);
}

TEST(TcpStoreServer, WithoutAKeyListensOnLoopbackOnly) {
  const auto server = TcpStoreServer::start("0.0.0.0", 0);
  ASSERT_FALSE(server.ok());
  EXPECT_EQ(server.error().code, ErrorCode::invalid_argument);
  EXPECT_NE(server.error().message.find("--cluster-key-file"), std::string::npos) << server.error().message;
  EXPECT_TRUE(TcpStoreServer::start("0.0.0.0", 0, key_of('k')).ok());
}

TEST(TcpStore, SaysSoWhenTheServerIsGone) {
  auto server = start_server();
  auto store = std::move(connect_tcp_store("127.0.0.1", server->port(), long_ms)).value();
  const int port = server->port();
  server.reset();
  const auto gone = store->get("key", long_ms);
  ASSERT_FALSE(gone.ok());
  EXPECT_EQ(gone.error().code, ErrorCode::unavailable);
  EXPECT_NE(gone.error().message.find("key"), std::string::npos);
  const auto later = connect_tcp_store("127.0.0.1", port, 50);
  ASSERT_FALSE(later.ok());
  EXPECT_EQ(later.error().code, ErrorCode::deadline_exceeded);
  EXPECT_NE(later.error().message.find(std::to_string(port)), std::string::npos);
}

TEST(TcpStore, APortInUseIsAnError) {
  const auto server = start_server();
  const auto second = TcpStoreServer::start("127.0.0.1", server->port());
  ASSERT_FALSE(second.ok());
  EXPECT_NE(second.error().message.find(std::to_string(server->port())), std::string::npos);
}

// A listener that is no store answers nothing.
TEST(TcpStore, AServerThatDoesNotAnswerIsAnError) {
  const UniqueFd listener = std::move(listen_tcp("127.0.0.1", 0, 4)).value();
  const auto store = connect_tcp_store("127.0.0.1", tcp::local_address(listener.get())->port(), 50);
  ASSERT_FALSE(store.ok());
  EXPECT_EQ(store.error().code, ErrorCode::deadline_exceeded);
}

}  // namespace
}  // namespace chorus

// Somebody on the way between two ranks with a key: a relay that hands every byte on, as it is or changed. No changed
// byte may be taken for a message, and both ranks hear of it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <atomic>
#include <functional>
#include <latch>
#include <thread>

#include "net/handshake.h"
#include "net/tcp.h"
#include "parallel/store/store_check.h"
#include "parallel/transport/tcp_channel.h"
#include "parallel/transport/tcp_contact.h"
#include "parallel/transport/tcp_socket.h"
#include "testing/group_testing.h"

namespace chorus {
namespace {

using testing::AnyOf;
using testing::HasSubstr;

enum Connection { data = 0, news = 1 };
enum Direction { up = 0, down = 1 };  // up: from rank 1, which calls, to rank 0

struct Place {
  int connection;
  int direction;
  std::size_t offset;  // of the byte, from the connection's first one in this direction
  bool is(int in_connection, int in_direction, std::size_t at, std::size_t count = 1) const {
    return connection == in_connection && direction == in_direction && offset >= at && offset < at + count;
  }
};
using Put = std::function<void(int connection, int direction, char byte)>;
// What becomes of a byte: by default put where it belongs.
using Tamper = std::function<void(const Place& place, char byte, const Put& put)>;

void hand_on(const Place& place, char byte, const Put& put) {
  put(place.connection, place.direction, byte);
}

class Relay {
 public:
  Relay(const TcpContact& target, Tamper tamper)
      : target_(target), tamper_(std::move(tamper)), listener_(value_of(listen_tcp("127.0.0.1", 0, 8))) {
    thread_ = std::thread([this] { run(); });
  }
  ~Relay() {
    stopped_ = true;
    thread_.join();
  }
  TcpContact contact() const {
    TcpContact contact = target_;
    contact.port = value_of(tcp::local_address(listener_.get())).port();
    return contact;
  }

 private:
  void run() {
    while (!stopped_) {
      std::vector<pollfd> items{{listener_.get(), POLLIN, 0}};
      for (const auto& ends : sockets_) {
        for (const UniqueFd& end : ends) items.push_back({end.get(), POLLIN, 0});
      }
      (void)::poll(items.data(), items.size(), 10);
      for (std::size_t i = 1; i < items.size(); ++i) {
        if (items[i].revents != 0) pass(static_cast<int>(i - 1) / 2, static_cast<int>(i - 1) % 2);
      }
      if ((items[0].revents & POLLIN) == 0) continue;
      sockets_.push_back({value_of(tcp::accept(listener_.get())),
                          value_of(connect_tcp(target_.address, target_.port, deadline_after(test_timeout_ms)))});
      offsets_.push_back({0, 0});
    }
  }

  UniqueFd& source(int connection, int direction) {
    return sockets_[static_cast<std::size_t>(connection)][static_cast<std::size_t>(direction)];
  }

  void pass(int connection, int direction) {
    char bytes[4096];
    const ssize_t count = ::recv(source(connection, direction).get(), bytes, sizeof bytes, 0);
    if (count < 0 && errno == EAGAIN) return;
    if (count <= 0) {  // one end is gone: so is the other
      source(connection, up).reset();
      source(connection, down).reset();
      return;
    }
    std::array<std::array<std::string, 2>, 2> changed;
    std::size_t& offset = offsets_[static_cast<std::size_t>(connection)][static_cast<std::size_t>(direction)];
    for (ssize_t i = 0; i < count; ++i) {
      tamper_({connection, direction, offset++}, bytes[i], [&](int to_connection, int to_direction, char byte) {
        changed[static_cast<std::size_t>(to_connection)][static_cast<std::size_t>(to_direction)] += byte;
      });
    }
    for (int to = 0; to < 2; ++to) {
      for (const int way : {up, down}) {
        const std::string& given = changed[static_cast<std::size_t>(to)][static_cast<std::size_t>(way)];
        if (given.empty()) continue;
        (void)send_all(source(to, 1 - way).get(), given, deadline_after(test_timeout_ms), "a rank");
      }
    }
  }

  TcpContact target_;
  Tamper tamper_;
  UniqueFd listener_;
  std::vector<std::array<UniqueFd, 2>> sockets_;  // by connection: the end of rank 1, the end of rank 0
  std::vector<std::array<std::size_t, 2>> offsets_;
  std::atomic<bool> stopped_ = false;
  std::thread thread_;
};

TcpDoor open_door() {
  TcpTransportOptions options;
  options.key = test_key();
  options.join_timeout_ms = options.exchange_timeout_ms = test_timeout_ms;
  return value_of(TcpDoor::open(options));
}

// Two ranks and the relay between them.
struct Tampered {
  TcpDoor first = open_door(), second = open_door();
  std::vector<std::string> contacts{first.contact(), second.contact()};
  Relay relay;

  explicit Tampered(Tamper tamper)
      : relay(value_of(decode_contact(first.contact(), test_key().get())), std::move(tamper)) {}

  std::unique_ptr<Transport> join_first() { return value_of(first.join(0, contacts)); }
  Result<std::unique_ptr<Transport>> try_join_second() {
    return second.join(1,
                       std::vector<std::string>{encode_contact(relay.contact(), test_key().get()), second.contact()});
  }
  std::unique_ptr<Transport> join_second() { return value_of(try_join_second()); }
};

// Where the bytes of messages begin: after the handshake, and the hello or its answer, each with a tag.
constexpr std::size_t hello_bytes = 36;
constexpr std::size_t up_begin = handshake_bytes_max + hello_bytes + tag_bytes;
constexpr std::size_t down_begin = (handshake_bytes_max - tag_bytes) + (1 + tag_bytes) + (1 + tag_bytes);
constexpr std::size_t begin_of(int direction) {
  return direction == up ? up_begin : down_begin;
}

// Three messages each way, the third of several parts.
constexpr std::array<std::size_t, 3> message_bytes{1000, 1000, 100'000};
constexpr std::size_t second_begin = 1000 + tag_bytes, third_begin = 2 * second_begin;
constexpr std::size_t last_part_begin =
    third_begin + message_bytes[2] / tcp_part_bytes_max * (tcp_part_bytes_max + tag_bytes);
constexpr std::size_t last_part_bytes = message_bytes[2] % tcp_part_bytes_max;

struct Heard {
  std::string errors[2];
  bool right[2] = {false, false};  // each rank was told that all is well, and it was
  bool wrong[2] = {false, false};  // ... and it was not
};

Heard exchange_through(Tamper tamper) {
  Tampered world(std::move(tamper));
  Heard heard;
  std::latch both_joined(2);  // so that only what comes after is changed
  const auto rank = [&](int self, const std::unique_ptr<Transport>& transport) {
    both_joined.arrive_and_wait();
    std::vector<std::vector<std::byte>> sent, received;
    std::vector<Transport::Outgoing> outgoing;
    std::vector<Transport::Incoming> incoming;
    for (const std::size_t bytes : message_bytes) {
      sent.emplace_back(bytes, std::byte{5});
      received.emplace_back(bytes, std::byte{0});
    }
    for (std::size_t i = 0; i < sent.size(); ++i) {
      outgoing.push_back({1 - self, sent[i]});
      incoming.push_back({1 - self, received[i]});
    }
    auto exchanged = transport->exchange(outgoing, incoming);
    if (exchanged.ok()) (received == sent ? heard.right : heard.wrong)[self] = true;
    // What this rank sent may have been changed, too, which the other one finds.
    std::byte sign{1}, seen{};
    const Transport::Outgoing out{1 - self, {&sign, 1}};
    const Transport::Incoming in{1 - self, {&seen, 1}};
    if (exchanged.ok()) exchanged = transport->exchange({&out, 1}, {&in, 1});
    if (!exchanged.ok()) heard.errors[self] = exchanged.error().message;
  };
  std::thread first([&] { rank(0, world.join_first()); });
  rank(1, world.join_second());
  first.join();
  return heard;
}

TEST(TcpTampering, ARelayThatChangesNothingIsNotNoticed) {
  const Heard heard = exchange_through(hand_on);
  for (const int rank : {0, 1}) {
    EXPECT_TRUE(heard.right[rank]);
    EXPECT_EQ(heard.errors[rank], "");
  }
}

struct Case {
  const char* name;
  std::function<Tamper(int direction)> tamper;
};

Tamper flip_of(int connection, int direction, std::size_t offset) {
  return [=](const Place& place, char byte, const Put& put) {
    put(place.connection, place.direction,
        static_cast<char>(place.is(connection, direction, offset) ? byte ^ 1 : byte));
  };
}

Tamper flip(int direction, std::size_t offset) {
  return flip_of(data, direction, begin_of(direction) + offset);
}

// The second message's place is taken by the first, which is as long and the same, but for its tag.
Tamper repeat_first_message(int direction) {
  return [=, message = std::string()](const Place& place, char byte, const Put& put) mutable {
    const std::size_t begin = begin_of(direction), length = message_bytes[0] + tag_bytes;
    if (place.is(data, direction, begin, length)) message += byte;
    const bool second = place.is(data, direction, begin + length, length);
    put(place.connection, place.direction, second ? message[place.offset - begin - length] : byte);
  };
}

Tamper drop(int direction, std::size_t first, std::size_t count) {
  return [=](const Place& place, char byte, const Put& put) {
    if (!place.is(data, direction, begin_of(direction) + first, count)) hand_on(place, byte, put);
  };
}

// What a rank sent comes back to it.
Tamper reflect(int direction) {
  return [=](const Place& place, char byte, const Put& put) {
    if (place.connection == data && place.direction != direction && place.offset >= begin_of(place.direction)) return;
    const bool back = place.connection == data && place.offset >= begin_of(direction) && place.direction == direction;
    put(place.connection, back ? 1 - place.direction : place.direction, byte);
  };
}

// What goes over the first connection from here on leaves on the second one.
Tamper cross(int direction) {
  return [=](const Place& place, char byte, const Put& put) {
    const bool here = place.is(data, direction, begin_of(direction), 1'000'000);
    put(here ? news : place.connection, place.direction, byte);
  };
}

const Case cases[] = {
    {"FirstByte", [](int direction) { return flip(direction, 0); }},
    {"ByteInThe2ndMessage", [](int direction) { return flip(direction, second_begin + 500); }},
    {"ByteOfTheLastPart", [](int direction) { return flip(direction, last_part_begin + last_part_bytes - 1); }},
    {"TagOfTheFirstMessage", [](int direction) { return flip(direction, second_begin - 1); }},
    {"TagOfTheLastPart", [](int direction) { return flip(direction, last_part_begin + last_part_bytes); }},
    {"MessageRepeated", repeat_first_message},
    {"MessageDropped", [](int direction) { return drop(direction, 0, second_begin); }},
    {"PartDropped", [](int direction) { return drop(direction, third_begin + 10, 20'000); }},
    {"SentBack", reflect},
    {"IntoTheOtherConnection", cross},
};

class TcpTampering : public testing::TestWithParam<std::tuple<Case, int>> {};
INSTANTIATE_TEST_SUITE_P(Changes, TcpTampering, testing::Combine(testing::ValuesIn(cases), testing::Values(up, down)),
                         [](const auto& info) {
                           return std::string(std::get<0>(info.param).name) +
                                  (std::get<1>(info.param) == up ? "Up" : "Down");
                         });

TEST_P(TcpTampering, IsNoticedByBothRanks) {
  const auto& [change, direction] = GetParam();
  const Heard heard = exchange_through(change.tamper(direction));
  for (const int rank : {0, 1}) {
    EXPECT_FALSE(heard.wrong[rank]) << "rank " << rank << " took changed bytes for its messages";
    EXPECT_THAT(heard.errors[rank], HasSubstr("bears a wrong tag"));
  }
  EXPECT_FALSE(heard.right[direction == up ? 0 : 1]);
}

// Goal: no reason and no farewell is believed that its sender did not give. Method: every byte of the news in turn.
TEST(TcpTamperingWithNews, IsNoticed) {
  const std::string reason = "out of paper";
  const std::size_t bytes = sizeof(std::uint32_t) + tag_bytes + reason.size() + tag_bytes;
  for (std::size_t changed = 0; changed < bytes; ++changed) {
    Tampered world(flip_of(news, up, up_begin + changed));
    std::thread first([&] {
      const auto told = world.join_first()->wait_for(1, test_timeout_ms);
      ASSERT_FALSE(told.ok());
      EXPECT_THAT(told.error().message, HasSubstr("bears a wrong tag"));
    });
    const auto second = world.join_second();
    second->abort(reason);
    first.join();
  }
}

// Goal: nobody leads a rank to another channel, rank or world, or says that it was heard. Method: a byte of each field
// of the hello; the caller is dropped, and a true one after it joins.
TEST(TcpTamperingWithTheHello, IsRefused) {
  for (const std::size_t changed : {0, 4, 8, 12, 16, 20, 35, 36}) {
    Tampered world(flip_of(data, up, handshake_bytes_max + changed));
    std::thread first([&] { EXPECT_TRUE(group_of_all(world.join_first()).barrier().ok()); });
    const auto dropped = world.try_join_second();
    ASSERT_FALSE(dropped.ok());
    EXPECT_THAT(dropped.error().message, HasSubstr("rank 0 does not take the call"));
    TcpDoor again = open_door();
    auto joined = value_of(again.join(1, std::vector<std::string>{world.first.contact(), again.contact()}));
    EXPECT_TRUE(group_of_all(std::move(joined)).barrier().ok());
    first.join();
  }
}

// Goal: the same where rank 0 has taken the first call already: its joining ends, too. Method: the second call's hello,
// and the answer to the first.
TEST(TcpTamperingWithTheHello, AfterTheFirstCallEndsTheJoining) {
  for (const Tamper& tamper :
       {flip_of(news, up, handshake_bytes_max + 4), flip_of(data, down, down_begin - 1 - tag_bytes)}) {
    Tampered world(tamper);
    std::thread first([&] {
      const auto joined = world.first.join(0, world.contacts);
      ASSERT_FALSE(joined.ok());
      EXPECT_THAT(joined.error().message, HasSubstr("rank 1 left while the ranks were joining"));
    });
    const auto dropped = world.try_join_second();
    ASSERT_FALSE(dropped.ok());
    EXPECT_THAT(dropped.error().message, HasSubstr("rank 0 does not take the call"));
    first.join();
  }
}

}  // namespace
}  // namespace chorus

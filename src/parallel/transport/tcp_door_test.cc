// How ranks find each other through doors and contacts, and who is turned away.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>

#include <filesystem>
#include <thread>

#include "net/tcp.h"
#include "parallel/store/store_check.h"
#include "parallel/transport/tcp_contact.h"
#include "parallel/transport/tcp_socket.h"
#include "testing/group_testing.h"

namespace chorus {
namespace {

using testing::AnyOf;
using testing::HasSubstr;

TcpTransportOptions options_with(std::shared_ptr<const ClusterKey> key, int join_timeout_ms = test_timeout_ms) {
  TcpTransportOptions options;
  options.key = std::move(key);
  options.join_timeout_ms = join_timeout_ms;
  return options;
}

using Joined = std::vector<Result<std::unique_ptr<Transport>>>;

// All ranks join as threads, rank r with options[r].
Joined join_through_store(const std::vector<TcpTransportOptions>& options) {
  const auto store = make_memory_store();
  Joined joined;
  for (std::size_t rank = 0; rank < options.size(); ++rank) joined.emplace_back(std::unique_ptr<Transport>());
  std::vector<std::thread> threads;
  for (std::size_t rank = 0; rank < options.size(); ++rank) {
    threads.emplace_back([&, rank] {
      joined[rank] = join_tcp_world(*store, static_cast<int>(rank), static_cast<int>(options.size()), options[rank]);
    });
  }
  for (auto& thread : threads) thread.join();
  return joined;
}

void expect_talk(const Joined& joined) {
  for (const auto& rank : joined) ASSERT_TRUE(rank.ok()) << rank.error().message;
  const std::byte sign{7};
  std::byte seen{};
  const Transport::Outgoing outgoing{0, {&sign, 1}};
  const Transport::Incoming incoming{1, {&seen, 1}};
  EXPECT_TRUE((*joined[1])->exchange({&outgoing, 1}, {}).ok());
  EXPECT_TRUE((*joined[0])->exchange({}, {&incoming, 1}).ok());
  EXPECT_EQ(seen, sign);
}

template <typename Matcher>
void expect_refused(const Joined& joined, const Matcher& reason) {
  for (const auto& rank : joined) {
    ASSERT_FALSE(rank.ok());
    EXPECT_EQ(rank.error().code, ErrorCode::invalid_argument);
    EXPECT_THAT(rank.error().message, reason);
  }
}

TEST(TcpDoor, RanksMeetThroughAStore) {
  expect_talk(join_through_store({options_with(nullptr), options_with(nullptr)}));
  expect_talk(join_through_store({options_with(test_key()), options_with(test_key()), options_with(test_key())}));
}

TEST(TcpDoor, AWorldOfOneNeedsNobody) {
  EXPECT_EQ(make_tcp_world(1, nullptr, test_timeout_ms).join(0)->size(), 1);
}

// Goal: ranks that cannot belong together hear so at once, all of them. Method: the deadline of joining is a minute.
TEST(TcpDoor, DifferentKeysAreRefusedInAllRanks) {
  expect_refused(
      join_through_store({options_with(test_key('a')), options_with(test_key('a')), options_with(test_key('b'))}),
      AnyOf(HasSubstr("rank 2: it holds another cluster key: --cluster-key-file must have the same bytes"),
            HasSubstr("rank 0: it holds another cluster key")));
  expect_refused(join_through_store({options_with(test_key()), options_with(nullptr)}),
                 AnyOf(HasSubstr("rank 1: it has no cluster key and this process has one: give --cluster-key-file"),
                       HasSubstr("rank 0: it has a cluster key and this process has none: give --cluster-key-file")));
}

TEST(TcpDoor, AnAddressThatOthersReachNeedsAKey) {
  TcpTransportOptions open = options_with(nullptr);
  open.address = "192.0.2.1";  // of documents (RFC 5737): refused before it is found to be none of this host's
  expect_refused(join_through_store({options_with(nullptr), open, options_with(test_key())}),
                 HasSubstr("rank 1: 192.0.2.1 can be reached from other machines and there is no cluster key: give "
                           "--cluster-key-file FILE on every node (make one with: (umask 077; openssl rand -hex 32 > "
                           "FILE), and copy it to every node), or listen on 127.0.0.1"));
  open.key = test_key();
  EXPECT_EQ(TcpDoor::open(open).error().code, ErrorCode::unavailable) << "it is none of this host's";
  open.address = "0.0.0.0";
  EXPECT_THAT(TcpDoor::open(open).error().message, HasSubstr("0.0.0.0 is no address that other ranks can reach"));
}

// Goal: a rank whose address is only its own node's is named at once, in all ranks. Method: rank 0's contact says that
// it listens elsewhere.
TEST(TcpDoor, ALoopbackAddressAmongOthersIsRefused) {
  const auto key = test_key();
  auto door = value_of(TcpDoor::open(options_with(key)));
  const TcpContact elsewhere{"192.0.2.1", 1, std::string(tcp_token_bytes, 't')};
  const std::vector<std::string> contacts{encode_contact(elsewhere, key.get()), door.contact()};
  const auto joined = door.join(1, contacts);
  ASSERT_FALSE(joined.ok());
  EXPECT_EQ(joined.error().code, ErrorCode::invalid_argument);
  EXPECT_THAT(joined.error().message, HasSubstr("rank 1 can be reached at 127.0.0.1 only"));
}

TEST(TcpDoor, WhatIsNoContactIsRefused) {
  const auto key = test_key();
  const auto open = [&] { return value_of(TcpDoor::open(options_with(key, 50))); };
  const auto other = open();
  for (const std::string& bad : {std::string(), std::string("x"), other.contact().substr(1), other.contact() + "x"}) {
    auto door = open();
    const auto joined = door.join(0, std::vector<std::string>{door.contact(), bad});
    ASSERT_FALSE(joined.ok());
    EXPECT_THAT(joined.error().message, HasSubstr("rank 1: "));
  }
  // Under its tag: another port would lead callers elsewhere.
  std::string changed = other.contact();
  changed[changed.find("127.0.0.1") + 9] ^= 1;
  auto door = open();
  EXPECT_EQ(door.join(0, std::vector<std::string>{door.contact(), changed}).error().code, ErrorCode::invalid_argument);
  auto foreign = open();
  EXPECT_THAT(foreign.join(0, std::vector<std::string>{other.contact(), foreign.contact()}).error().message,
              HasSubstr("the contact of rank 0 is not that of this door"));
  EXPECT_FALSE(open().join(1, std::vector<std::string>{other.contact()}).ok());
}

TEST(TcpDoor, JoiningHasADeadline) {
  const auto store = make_memory_store();
  EXPECT_EQ(join_tcp_world(*store, 0, 2, options_with(nullptr, 50)).error().code, ErrorCode::deadline_exceeded);
  // The other rank listens and does not come.
  for (const int rank : {0, 1}) {
    auto door = value_of(TcpDoor::open(options_with(test_key(), 50)));
    const auto other = value_of(TcpDoor::open(options_with(test_key())));
    const auto joined = door.join(rank, rank == 0 ? std::vector<std::string>{door.contact(), other.contact()}
                                                  : std::vector<std::string>{other.contact(), door.contact()});
    ASSERT_FALSE(joined.ok());
    EXPECT_EQ(joined.error().code, ErrorCode::deadline_exceeded);
    EXPECT_THAT(joined.error().message, HasSubstr(rank == 0 ? "no connection from ranks 1" : "rank 0 listens"));
  }
}

// Goal: a rank that computes for long with its sockets full is not given up, and the end of a node is noticed. Method:
// each rank has one connection that ends after ten seconds of silence, and one that does not (the kernel needs eleven
// seconds to show it).
TEST(TcpDoor, ABusyPeerIsNotTakenForALostOne) {
  const TestWorld world = make_tcp_world(2, nullptr, test_timeout_ms);
  std::vector<std::unique_ptr<Transport>> joined(2);
  std::thread other([&] { joined[1] = world.join(1); });
  joined[0] = world.join(0);
  other.join();
  std::vector<int> timeouts_ms;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    const int fd = std::stoi(entry.path().filename());
    if (!tcp::peer_address(fd).ok()) continue;  // no connection
    int timeout_ms = -1;
    socklen_t bytes = sizeof timeout_ms;
    if (::getsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout_ms, &bytes) == 0) timeouts_ms.push_back(timeout_ms);
  }
  EXPECT_THAT(timeouts_ms, testing::UnorderedElementsAre(0, 0, 10'000, 10'000));
}

// Goal: strangers at a rank's port neither join nor keep the others out. Method: more of them than are heard at once,
// some noisy, some silent, before the others come.
TEST(TcpDoor, StrangersAtThePortAreTurnedAway) {
  for (const auto& key : {test_key(), std::shared_ptr<const ClusterKey>()}) {
    std::vector<TcpDoor> doors;
    std::vector<std::string> contacts;
    for (int rank = 0; rank < 2; ++rank) {
      doors.push_back(value_of(TcpDoor::open(options_with(key))));
      contacts.push_back(doors.back().contact());
    }
    const TcpContact first = value_of(decode_contact(contacts[0], key.get()));
    std::vector<UniqueFd> strangers;
    for (int i = 0; i < 80; ++i) {
      strangers.push_back(value_of(connect_tcp(first.address, first.port, deadline_after(test_timeout_ms))));
      if (i >= 3) continue;  // silent
      ASSERT_TRUE(send_all(strangers.back().get(), std::string(100, 'x'), deadline_after(test_timeout_ms), "").ok());
    }
    Joined joined;
    joined.emplace_back(std::unique_ptr<Transport>());
    joined.emplace_back(std::unique_ptr<Transport>());
    std::thread other([&] { joined[1] = doors[1].join(1, contacts); });
    joined[0] = doors[0].join(0, contacts);
    other.join();
    expect_talk(joined);
  }
}

// Goal: a rank that knows the key but belongs elsewhere is none of this world. Method: it is led here instead of to its
// own rank 0; this world's rank 1 comes after it.
TEST(TcpDoor, ACallerOfAnotherWorldIsTurnedAway) {
  const auto key = test_key();
  auto own = value_of(TcpDoor::open(options_with(key))), peer = value_of(TcpDoor::open(options_with(key)));
  auto stray = value_of(TcpDoor::open(options_with(key)));
  TcpContact misled = value_of(decode_contact(own.contact(), key.get()));
  misled.token = std::string(tcp_token_bytes, 't');
  Joined joined;
  joined.emplace_back(std::unique_ptr<Transport>());
  joined.emplace_back(std::unique_ptr<Transport>());
  std::thread first([&] { joined[0] = own.join(0, std::vector<std::string>{own.contact(), peer.contact()}); });
  // Its calls are taken, and dropped once its hello was read.
  const auto strayed = stray.join(1, std::vector<std::string>{encode_contact(misled, key.get()), stray.contact()});
  ASSERT_FALSE(strayed.ok());
  EXPECT_THAT(strayed.error().message, HasSubstr("rank 0 does not take the call"));
  joined[1] = peer.join(1, std::vector<std::string>{own.contact(), peer.contact()});
  first.join();
  expect_talk(joined);
}

// Goal: a rank that fails while it joins is missed by the others at once. Method: rank 2 is linked to rank 0 and then
// finds somebody at rank 1's port who hangs up.
TEST(TcpDoor, ARankThatFailsWhileJoiningEndsTheJoiningOfOthers) {
  const auto key = test_key();
  auto first = value_of(TcpDoor::open(options_with(key))), last = value_of(TcpDoor::open(options_with(key)));
  const UniqueFd false_rank = value_of(listen_tcp("127.0.0.1", 0, 1));
  const TcpContact at{"127.0.0.1", value_of(tcp::local_address(false_rank.get())).port(),
                      std::string(tcp_token_bytes, 't')};
  const std::vector<std::string> contacts{first.contact(), encode_contact(at, key.get()), last.contact()};
  std::thread hanging_up([&] {
    ASSERT_TRUE(value_of(wait_for_socket(false_rank.get(), POLLIN, deadline_after(test_timeout_ms))));
    EXPECT_TRUE(value_of(tcp::accept(false_rank.get())).valid());
  });
  std::thread failing([&] {
    const auto joined = last.join(2, contacts);
    ASSERT_FALSE(joined.ok());
    EXPECT_THAT(joined.error().message, HasSubstr("rank 1"));
  });
  const auto joined = first.join(0, contacts);
  hanging_up.join();
  failing.join();
  ASSERT_FALSE(joined.ok());
  EXPECT_EQ(joined.error().code, ErrorCode::unavailable);
  EXPECT_THAT(joined.error().message, HasSubstr("rank 2 left while the ranks were joining"));
}

// The last try begins when no time is left, not even for the resolver: what the tries before it met is said.
TEST(ConnectTcp, SaysWhyItDidNotConnectAlsoToAName) {
  const auto addresses = tcp::resolve("127.0.0.1", 0);
  ASSERT_TRUE(addresses.ok());
  const int closed_port = [&] {
    const auto listener = tcp::listen(addresses->front(), 1);
    return tcp::local_address(listener->get())->port();
  }();
  const auto refused = connect_tcp("localhost", closed_port, deadline_after(50));
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::deadline_exceeded);
  EXPECT_THAT(refused.error().message, testing::HasSubstr("Connection refused"));
}

}  // namespace
}  // namespace chorus

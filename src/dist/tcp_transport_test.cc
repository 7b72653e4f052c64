#include "dist/tcp_transport.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <barrier>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <functional>
#include <future>
#include <numeric>
#include <thread>

#include "base/clock.h"
#include "dist/group.h"
#include "dist/store_check.h"
#include "dist/tcp_socket.h"

namespace chorus {
namespace {

constexpr int long_ms = 20'000;
constexpr Nanoseconds second = 1'000'000'000;

// Runs `work` as each rank of a world of `size` threads.
void run_world(int size, int exchange_timeout_ms, const std::function<void(std::shared_ptr<Transport>)>& work) {
  const auto store = make_memory_store();
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; ++rank) {
    threads.emplace_back([&, rank] {
      TcpTransportOptions options;
      options.join_timeout_ms = long_ms;
      options.exchange_timeout_ms = exchange_timeout_ms;
      auto joined = join_tcp_world(*store, rank, size, options);
      ASSERT_TRUE(joined.ok()) << joined.error().message;
      work(std::shared_ptr<Transport>(std::move(*joined)));
    });
  }
  for (auto& thread : threads) thread.join();
}

Group group_of_all(const std::shared_ptr<Transport>& transport) {
  std::vector<int> ranks(static_cast<std::size_t>(transport->size()));
  std::iota(ranks.begin(), ranks.end(), 0);
  return Group(transport, ranks);
}

// Goal: the same bits as over shared memory. Method: sums that depend on their order, of both sizes that
// all_reduce_tree tells apart.
TEST(TcpTransport, CollectivesGiveTheBitsOfThreadGroups) {
  constexpr int size = 4;
  for (const std::size_t count : {1000U, 100'003U}) {
    const auto input = [&](int rank) {
      std::vector<float> data(count);
      for (std::size_t i = 0; i < count; ++i) {
        data[i] = static_cast<float>((i * 37 + static_cast<std::size_t>(rank) * 101) % 977) * (rank % 2 ? 1e-3F : 1e6F);
      }
      return data;
    };
    std::vector<float> expected;
    auto groups = make_thread_groups(size, long_ms);
    std::vector<std::thread> threads;
    for (int rank = 0; rank < size; ++rank) {
      threads.emplace_back([&, rank] {
        auto data = input(rank);
        ASSERT_TRUE(groups[static_cast<std::size_t>(rank)].all_reduce_tree(data).ok());
        if (rank == 0) expected = data;
      });
    }
    for (auto& thread : threads) thread.join();
    run_world(size, long_ms, [&](const std::shared_ptr<Transport>& transport) {
      Group group = group_of_all(transport);
      auto data = input(transport->rank());
      const auto summed = group.all_reduce_tree(data);
      ASSERT_TRUE(summed.ok()) << summed.error().message;
      EXPECT_EQ(data.size(), expected.size());
      EXPECT_EQ(std::memcmp(data.data(), expected.data(), count * sizeof(float)), 0);
      ASSERT_TRUE(group.barrier().ok());
    });
  }
}

// Goal: pieces of one peer follow one another as a stream, and long messages in a circle do not block.
TEST(TcpTransport, LongMessagesInACircleArriveInOrder) {
  constexpr std::size_t bytes = 20'000'000;
  run_world(3, long_ms, [&](const std::shared_ptr<Transport>& transport) {
    const int next = (transport->rank() + 1) % 3, previous = (transport->rank() + 2) % 3;
    const std::vector<std::byte> first(bytes, std::byte{1}), second_piece(bytes, std::byte{2});
    std::vector<std::byte> a(10), b(2 * bytes - 10);
    const Transport::Outgoing outgoing[] = {{next, first}, {next, second_piece}};
    const Transport::Incoming incoming[] = {{previous, a}, {previous, b}};
    const auto exchanged = transport->exchange(outgoing, incoming);
    ASSERT_TRUE(exchanged.ok()) << exchanged.error().message;
    EXPECT_EQ(b[bytes - 11], std::byte{1});
    EXPECT_EQ(b[bytes - 10], std::byte{2});
    EXPECT_TRUE(group_of_all(transport).barrier().ok());
  });
}

TEST(TcpTransport, WaitForSleepsUntilAByteIsThere) {
  run_world(2, long_ms, [&](const std::shared_ptr<Transport>& transport) {
    Group group = group_of_all(transport);
    if (transport->rank() == 1) {
      EXPECT_FALSE(*transport->wait_for(0, 20));  // rank 0 says nothing before it has heard of rank 1
      ASSERT_TRUE(group.barrier().ok());
      EXPECT_TRUE(*transport->wait_for(0, long_ms));
      std::string message;
      ASSERT_TRUE(group.receive_message(&message, 0, 100).ok());
      EXPECT_EQ(message, "hello");
    } else {
      EXPECT_TRUE(*transport->wait_for(1, long_ms));
      ASSERT_TRUE(group.barrier().ok());
      ASSERT_TRUE(group.send_message("hello", 1).ok());
    }
    EXPECT_TRUE(group.barrier().ok());
  });
}

TEST(TcpTransport, ARankThatLeavesBreaksTheWorldOfTheOthers) {
  std::barrier all_out_of_the_first(4);  // a rank still in it would hear of the break there
  run_world(4, long_ms, [&](std::shared_ptr<Transport> transport) {
    EXPECT_TRUE(group_of_all(transport).barrier().ok());
    all_out_of_the_first.arrive_and_wait();
    if (transport->rank() == 2) return transport.reset();
    const Nanoseconds start = monotonic_now();
    const auto result = group_of_all(transport).barrier();
    EXPECT_LT(monotonic_now() - start, second);
    ASSERT_FALSE(result.ok());
    EXPECT_EQ(result.error().code, ErrorCode::unavailable);
    EXPECT_NE(result.error().message.find("rank 2"), std::string::npos) << result.error().message;
    EXPECT_FALSE(group_of_all(transport).barrier().ok());
  });
}

// Goal: ranks may leave one by one after a barrier, whoever is last out of it.
TEST(TcpTransport, LeavingAfterABarrierHurtsNobody) {
  for (int round = 0; round < 20; ++round) {
    run_world(4, long_ms, [&](const std::shared_ptr<Transport>& transport) {
      const auto result = group_of_all(transport).barrier();
      EXPECT_TRUE(result.ok()) << result.error().message;
    });
  }
}

TEST(TcpTransport, AnAbortReachesAllWithItsReason) {
  run_world(4, long_ms, [&](const std::shared_ptr<Transport>& transport) {
    if (transport->rank() == 3) return transport->abort("the model has no weights");
    const auto result = group_of_all(transport).barrier();
    ASSERT_FALSE(result.ok());
    EXPECT_EQ(result.error().message, "the model has no weights");
    const auto idle = transport->wait_for(0 == transport->rank() ? 1 : 0, long_ms);
    EXPECT_FALSE(idle.ok());
  });
}

TEST(TcpTransport, ADeadlineNamesTheMissingRankAndBreaksTheWorld) {
  std::promise<void> failed;
  std::shared_future<void> has_failed(failed.get_future());
  run_world(3, 50, [&](const std::shared_ptr<Transport>& transport) {
    std::byte byte{};
    const Transport::Incoming incoming{2, {&byte, 1}};
    if (transport->rank() == 0) {
      const auto result = transport->exchange({}, {&incoming, 1});
      ASSERT_FALSE(result.ok());
      EXPECT_EQ(result.error().code, ErrorCode::deadline_exceeded);
      EXPECT_EQ(result.error().message, "rank 0 waited 50 ms for ranks 2");
      failed.set_value();
      return;
    }
    has_failed.wait();
    const Transport::Outgoing outgoing{0, {&byte, 1}};
    const auto result = transport->exchange({&outgoing, 1}, {});
    ASSERT_FALSE(result.ok());
    EXPECT_EQ(result.error().message, "rank 0 waited 50 ms for ranks 2");
  });
}

// Goal: a killed process is noticed by a rank that is idle.
TEST(TcpTransport, AKilledProcessIsNoticed) {
  TcpTransportOptions options;
  const auto path = testing::TempDir() + "tcp_transport." + std::to_string(::getpid());
  std::filesystem::remove(path);  // of an earlier run
  options.join_timeout_ms = long_ms;
  const pid_t child = ::fork();
  if (child == 0) {
    const auto store = std::move(open_file_store(path)).value();
    const auto joined = join_tcp_world(*store, 1, 2, options);
    ::pause();
  }
  const auto store = std::move(open_file_store(path)).value();
  const auto joined = join_tcp_world(*store, 0, 2, options);
  ASSERT_TRUE(joined.ok()) << joined.error().message;
  ::kill(child, SIGKILL);
  const auto result = (*joined)->wait_for(1, long_ms);
  ::waitpid(child, nullptr, 0);
  ASSERT_FALSE(result.ok());
  EXPECT_NE(result.error().message.find("rank 1"), std::string::npos) << result.error().message;
}

// Goal: a stranger at a rank's port neither joins nor keeps the others out. Method: garbage at rank 0's port, which the
// test reads from the store as rank 1 would.
TEST(TcpTransport, AStrangerAtThePortIsTurnedAway) {
  const auto store = make_memory_store();
  TcpTransportOptions options;
  options.join_timeout_ms = long_ms;
  std::thread first([&] { EXPECT_TRUE(join_tcp_world(*store, 0, 2, options).ok()); });
  const std::string contact = *store->get("tcp/0", long_ms);
  std::uint32_t port = 0;
  std::memcpy(&port, contact.data() + 4 + std::strlen("127.0.0.1"), sizeof port);
  const auto stranger = connect_tcp("127.0.0.1", static_cast<int>(port), deadline_after(long_ms));
  ASSERT_TRUE(stranger.ok());
  const std::string noise(100, 'x');
  EXPECT_TRUE(send_all(stranger->get(), noise, deadline_after(long_ms), "rank 0").ok());
  const auto second_rank = join_tcp_world(*store, 1, 2, options);
  EXPECT_TRUE(second_rank.ok());
  first.join();
}

// Goal: a rank whose address is only its own node's is named at once, in all ranks. Method: 0.0.0.0 stands for the
// other kind.
TEST(TcpTransport, ALoopbackAddressAmongOthersIsRefused) {
  const auto store = make_memory_store();
  std::vector<std::thread> threads;
  for (int rank = 0; rank < 2; ++rank) {
    threads.emplace_back([&, rank] {
      TcpTransportOptions options;
      options.address = rank == 0 ? "0.0.0.0" : "127.0.0.1";
      const auto joined = join_tcp_world(*store, rank, 2, options);
      ASSERT_FALSE(joined.ok());
      EXPECT_EQ(joined.error().code, ErrorCode::invalid_argument);
      EXPECT_NE(joined.error().message.find("rank 1"), std::string::npos) << joined.error().message;
    });
  }
  for (auto& thread : threads) thread.join();
}

TEST(TcpTransport, JoiningHasADeadline) {
  const auto store = make_memory_store();
  TcpTransportOptions options;
  options.join_timeout_ms = 50;
  const auto joined = join_tcp_world(*store, 0, 2, options);
  ASSERT_FALSE(joined.ok());
  EXPECT_EQ(joined.error().code, ErrorCode::deadline_exceeded);
}

}  // namespace
}  // namespace chorus

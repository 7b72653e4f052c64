#include "dist/tcp_transport.h"

#include <gtest/gtest.h>

#include <barrier>
#include <csignal>
#include <functional>
#include <future>

#include "base/clock.h"
#include "dist/group_testing.h"

namespace chorus {
namespace {

constexpr Nanoseconds second = 1'000'000'000;

// With a key and without one.
class TcpTransport : public testing::TestWithParam<bool> {
 protected:
  static TcpTransportOptions options() {
    TcpTransportOptions options;
    if (GetParam()) options.key = test_key();
    options.join_timeout_ms = options.exchange_timeout_ms = test_timeout_ms;
    return options;
  }
  // Runs `work` as each rank of a world of `size` threads.
  static void run_world(int size, int exchange_timeout_ms,
                        const std::function<void(std::shared_ptr<Transport>)>& work) {
    const TestWorld world = make_tcp_world(size, options().key, exchange_timeout_ms);
    (void)run_as_threads(world, [&](std::shared_ptr<Transport> transport) {
      work(std::move(transport));
      return "";
    });
  }
};
INSTANTIATE_TEST_SUITE_P(Keys, TcpTransport, testing::Bool(),
                         [](const auto& info) { return info.param ? "WithKey" : "WithoutKey"; });

// Goal: pieces of one peer follow one another as a stream, and long messages do not block: in a circle, and in both
// directions at once. Method: more than the sockets hold; lengths that end in the middle of a part.
TEST_P(TcpTransport, LongMessagesInACircleArriveInOrder) {
  constexpr std::size_t bytes = 20'000'001;
  for (const int size : {2, 3}) {
    run_world(size, test_timeout_ms, [&](const std::shared_ptr<Transport>& transport) {
      const int next = (transport->rank() + 1) % size, previous = (transport->rank() + size - 1) % size;
      const std::vector<std::byte> first(10, std::byte{1}), second_piece(bytes, std::byte{2}),
          third(bytes, std::byte{3});
      std::vector<std::byte> a(10), b(bytes), c(bytes);
      const Transport::Outgoing outgoing[] = {{next, first}, {next, second_piece}, {next, {}}, {next, third}};
      const Transport::Incoming incoming[] = {{previous, a}, {previous, b}, {previous, {}}, {previous, c}};
      const auto exchanged = transport->exchange(outgoing, incoming);
      ASSERT_TRUE(exchanged.ok()) << exchanged.error().message;
      EXPECT_EQ(a, first);
      EXPECT_EQ(b, second_piece);
      EXPECT_EQ(c, third);
      EXPECT_TRUE(group_of_all(transport).barrier().ok());
    });
  }
}

TEST_P(TcpTransport, WaitForSleepsUntilAByteIsThere) {
  run_world(2, test_timeout_ms, [&](const std::shared_ptr<Transport>& transport) {
    Group group = group_of_all(transport);
    if (transport->rank() == 1) {
      EXPECT_FALSE(*transport->wait_for(0, 20));  // rank 0 says nothing before it has heard of rank 1
      ASSERT_TRUE(group.barrier().ok());
      EXPECT_TRUE(*transport->wait_for(0, test_timeout_ms));
      std::string message;
      ASSERT_TRUE(group.receive_message(&message, 0, 100).ok());
      EXPECT_EQ(message, "hello");
    } else {
      EXPECT_TRUE(*transport->wait_for(1, test_timeout_ms));
      ASSERT_TRUE(group.barrier().ok());
      ASSERT_TRUE(group.send_message("hello", 1).ok());
    }
    EXPECT_TRUE(group.barrier().ok());
  });
}

TEST_P(TcpTransport, ARankThatLeavesBreaksTheWorldOfTheOthers) {
  std::barrier all_out_of_the_first(4);  // a rank still in it would hear of the break there
  run_world(4, test_timeout_ms, [&](std::shared_ptr<Transport> transport) {
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
TEST_P(TcpTransport, LeavingAfterABarrierHurtsNobody) {
  for (int round = 0; round < 20; ++round) {
    run_world(4, test_timeout_ms, [&](const std::shared_ptr<Transport>& transport) {
      const auto result = group_of_all(transport).barrier();
      EXPECT_TRUE(result.ok()) << result.error().message;
    });
  }
}

TEST_P(TcpTransport, AnAbortReachesAllWithItsReason) {
  run_world(4, test_timeout_ms, [&](const std::shared_ptr<Transport>& transport) {
    if (transport->rank() == 3) return transport->abort("the model has no weights");
    const auto result = group_of_all(transport).barrier();
    ASSERT_FALSE(result.ok());
    EXPECT_EQ(result.error().message, "the model has no weights");
    const auto idle = transport->wait_for(0 == transport->rank() ? 1 : 0, test_timeout_ms);
    EXPECT_FALSE(idle.ok());
  });
}

TEST_P(TcpTransport, ADeadlineNamesTheMissingRankAndBreaksTheWorld) {
  std::promise<void> failed;
  std::shared_future<void> has_failed(failed.get_future());
  run_world(3, 50, [&](const std::shared_ptr<Transport>& transport) {
    std::byte byte{};
    const Transport::Incoming incoming{2, {&byte, 1}};
    if (transport->rank() == 0) {
      const auto result = transport->exchange({}, {&incoming, 1});
      ASSERT_FALSE(result.ok());
      EXPECT_EQ(result.error().code, ErrorCode::deadline_exceeded);
      EXPECT_EQ(result.error().message, "rank 0 waited 50 ms for rank 2");
      failed.set_value();
      return;
    }
    has_failed.wait();
    const Transport::Outgoing outgoing{0, {&byte, 1}};
    const auto result = transport->exchange({&outgoing, 1}, {});
    ASSERT_FALSE(result.ok());
    EXPECT_EQ(result.error().message, "rank 0 waited 50 ms for rank 2");
  });
}

// Goal: a killed process is noticed by a rank that is idle.
TEST_P(TcpTransport, AKilledProcessIsNoticed) {
  const TestWorld world = make_tcp_world(2, options().key, test_timeout_ms);
  const pid_t child = fork_rank(world, 1, [](const auto&) { return ::pause() == 0 ? "" : "woken"; });
  const auto transport = world.join(0);
  ::kill(child, SIGKILL);
  const auto result = transport->wait_for(1, test_timeout_ms);
  EXPECT_NE(exit_status_of(child), 0);
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.error().code, ErrorCode::unavailable);
  EXPECT_NE(result.error().message.find("rank 1"), std::string::npos) << result.error().message;
}

// Goal: what came of a message whose sender died in the middle is not taken for all of it. Method: the child says that
// it is at it by another message, and sends more than the sockets hold.
TEST_P(TcpTransport, AProcessKilledHalfWayThroughAMessageIsNoticed) {
  const TestWorld world = make_tcp_world(2, options().key, test_timeout_ms);
  const pid_t child = fork_rank(world, 1, with_group([](Group& group) -> std::string {
                                  const std::vector<std::byte> sign(1), message(64'000'000);
                                  return group.send(sign, 0).ok() && group.send(message, 0).ok() ? "sent" : "failed";
                                }));
  Group group = group_of_all(world.join(0));
  std::vector<std::byte> sign(1), message(64'000'000);
  ASSERT_TRUE(group.receive(sign, 1).ok());
  ASSERT_TRUE(*group.wait_for(1, test_timeout_ms));
  ::kill(child, SIGKILL);
  EXPECT_NE(exit_status_of(child), 0);
  const auto result = group.receive(message, 1);
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.error().code, ErrorCode::unavailable);
  EXPECT_NE(result.error().message.find("rank 1"), std::string::npos) << result.error().message;
}

}  // namespace
}  // namespace chorus

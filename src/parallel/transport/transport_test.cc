// What transport.h promises, over every backend: order, progress, and how a world ends. No test measures time: a world
// that ends by its deadline (a minute) instead of by a death gives another error.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <latch>

#include "testing/group_testing.h"

namespace chorus {
namespace {

using testing::HasSubstr;

constexpr int ranks = 4;

class TransportTest : public testing::TestWithParam<Backend> {
 protected:
  // Runs `work` as each rank of a world of threads.
  static void run_world(int size, const std::function<void(std::shared_ptr<Transport>)>& work,
                        int timeout_ms = test_timeout_ms) {
    (void)run_as_threads(make_test_world(GetParam(), size, timeout_ms), [&](std::shared_ptr<Transport> transport) {
      work(std::move(transport));
      return "";
    });
  }
};
INSTANTIATE_TEST_SUITE_P(Worlds, TransportTest, testing::ValuesIn(all_backends),
                         [](const auto& info) { return name_of(info.param); });

// "" or what is wrong with it: an error that names `rank` and is no deadline's.
std::string check_loss(const Result<void>& result, int rank) {
  if (result.ok()) return "no error";
  if (result.error().code != ErrorCode::unavailable) return "another code: " + result.error().message;
  if (result.error().message.find(fmt::format("rank {} ", rank)) != std::string::npos) return "";
  return "another reason: " + result.error().message;
}

// Goal: pieces of one peer follow one another as a stream, and long messages do not block: in a circle, and in both
// directions at once. Method: more than rings and sockets hold; lengths that end in the middle of a part.
TEST_P(TransportTest, LongMessagesInACircleArriveInOrder) {
  constexpr std::size_t bytes = 20'000'001;
  for (const int size : {2, 3, 4}) {
    run_world(size, [&](const std::shared_ptr<Transport>& transport) {
      const int next = (transport->rank() + 1) % size, previous = (transport->rank() + size - 1) % size;
      const std::vector<std::byte> first(10, std::byte{1}), second(bytes, std::byte{2}), third(bytes, std::byte{3});
      std::vector<std::byte> a(10), b(bytes), c(bytes);
      const Transport::Outgoing outgoing[] = {{next, first}, {next, second}, {next, {}}, {next, third}};
      const Transport::Incoming incoming[] = {{previous, a}, {previous, b}, {previous, {}}, {previous, c}};
      const auto exchanged = transport->exchange(outgoing, incoming);
      ASSERT_TRUE(exchanged.ok()) << exchanged.error().message;
      EXPECT_EQ(a, first);
      EXPECT_EQ(b, second);
      EXPECT_EQ(c, third);
      EXPECT_TRUE(group_of_all(transport).barrier().ok());
    });
  }
}

// Goal: a rank that both sends and receives does not wait for one before it does the other, whoever is on its node.
// Method: a sends to b and then to c; b does both in one exchange; c hears of a first, and then of b.
TEST_P(TransportTest, AllPiecesOfAnExchangeMoveAtOnce) {
  const std::vector<std::byte> message(16'000'000, std::byte{9});
  for (const auto& [a, b, c] : {std::tuple{0, 2, 3}, {0, 2, 1}, {0, 1, 2}, {3, 1, 0}, {1, 3, 2}, {2, 3, 0}}) {
    run_world(ranks, [&, a = a, b = b, c = c](const std::shared_ptr<Transport>& transport) {
      const int self = transport->rank();
      std::vector<std::byte> from_a(message.size()), from_b(message.size());
      const Transport::Outgoing to_b{b, message}, to_c{c, message};
      const Transport::Incoming of_a{a, from_a}, of_b{b, from_b};
      if (self == a) {
        EXPECT_TRUE(transport->exchange({&to_b, 1}, {}).ok());
        EXPECT_TRUE(transport->exchange({&to_c, 1}, {}).ok());
      } else if (self == b) {
        EXPECT_TRUE(transport->exchange({&to_c, 1}, {&of_a, 1}).ok());
        EXPECT_EQ(from_a, message);
      } else if (self == c) {
        EXPECT_TRUE(transport->exchange({}, {&of_a, 1}).ok());
        EXPECT_TRUE(transport->exchange({}, {&of_b, 1}).ok());
        EXPECT_EQ(from_a, message);
        EXPECT_EQ(from_b, message);
      }
      EXPECT_TRUE(group_of_all(transport).barrier().ok());
    });
  }
}

TEST_P(TransportTest, WaitForSleepsUntilAByteIsThere) {
  for (const int other : {1, 2, 3}) {
    run_world(ranks, [&](const std::shared_ptr<Transport>& transport) {
      Group group = group_of_all(transport);
      std::string message;
      if (transport->rank() == other) {
        EXPECT_FALSE(*transport->wait_for(0, 0));
        EXPECT_FALSE(*transport->wait_for(0, 20));  // rank 0 says nothing before it has heard of this one
        ASSERT_TRUE(group.send_message("ask", 0).ok());
        EXPECT_TRUE(*transport->wait_for(0, test_timeout_ms));
        ASSERT_TRUE(group.receive_message(&message, 0, 100).ok());
        EXPECT_EQ(message, "answer");
      } else if (transport->rank() == 0) {
        EXPECT_TRUE(*transport->wait_for(other, test_timeout_ms));
        ASSERT_TRUE(group.receive_message(&message, other, 100).ok());
        EXPECT_EQ(message, "ask");
        ASSERT_TRUE(group.send_message("answer", other).ok());
      }
      EXPECT_TRUE(group.barrier().ok());
    });
  }
}

TEST_P(TransportTest, ARankThatLeavesBreaksTheWorldOfTheOthers) {
  for (int leaving = 0; leaving < ranks; ++leaving) {
    std::latch all_out_of_the_first(ranks);  // a rank still in it would hear of the break there
    run_world(ranks, [&](std::shared_ptr<Transport> transport) {
      EXPECT_TRUE(group_of_all(transport).barrier().ok());
      all_out_of_the_first.arrive_and_wait();
      if (transport->rank() == leaving) return transport.reset();
      EXPECT_EQ(check_loss(group_of_all(transport).barrier(), leaving), "");
      EXPECT_FALSE(group_of_all(transport).barrier().ok());
    });
  }
}

// Goal: ranks may leave one by one after a barrier, whoever is last out of it.
TEST_P(TransportTest, LeavingAfterABarrierHurtsNobody) {
  for (int round = 0; round < 20; ++round) {
    run_world(ranks, [&](const std::shared_ptr<Transport>& transport) {
      const auto result = group_of_all(transport).barrier();
      EXPECT_TRUE(result.ok()) << result.error().message;
    });
  }
}

TEST_P(TransportTest, WhatARankSentBeforeItLeftCanBeRead) {
  for (const int leaving : {1, 2, 3}) {
    std::latch all_out_of_the_first(ranks), left(1);
    run_world(ranks, [&](std::shared_ptr<Transport> transport) {
      Group group = group_of_all(transport);
      ASSERT_TRUE(group.barrier().ok());
      all_out_of_the_first.arrive_and_wait();
      if (transport->rank() == leaving) {
        ASSERT_TRUE(group.send_message("the last words", 0).ok());
        group = Group::of_one();
        transport.reset();
        left.count_down();
      } else if (transport->rank() == 0) {
        left.wait();
        std::string message;
        ASSERT_TRUE(group.receive_message(&message, leaving, 100).ok());
        EXPECT_EQ(message, "the last words");
        std::byte more{};
        EXPECT_EQ(check_loss(group.receive({&more, 1}, leaving), leaving), "");
      }
    });
  }
}

TEST_P(TransportTest, AnAbortReachesTheBusyAndTheIdleWithItsFirstReason) {
  for (int aborting = 0; aborting < ranks; ++aborting) {
    run_world(ranks, [&](const std::shared_ptr<Transport>& transport) {
      const int self = transport->rank(),
                peer = (self + 1) % ranks == aborting ? (self + 2) % ranks : (self + 1) % ranks;
      if (self == aborting) {
        transport->abort("out of paper");
        return transport->abort("a later reason");
      }
      Result<void> told;
      if (self % 2 == 0) {
        std::byte byte{};
        const Transport::Incoming incoming{peer, {&byte, 1}};
        told = transport->exchange({}, {&incoming, 1});
      } else {
        const auto waited = transport->wait_for(peer, test_timeout_ms);
        if (!waited.ok()) told = waited.error();
      }
      ASSERT_FALSE(told.ok());
      EXPECT_EQ(told.error().code, ErrorCode::unavailable);
      EXPECT_THAT(told.error().message, HasSubstr("out of paper"));
      EXPECT_FALSE(transport->wait_for(peer, 0).ok());
    });
  }
}

TEST_P(TransportTest, ADeadlineNamesTheMissingRanksAndBreaksTheWorld) {
  for (const auto& missing : {std::vector{2}, std::vector{1, 2, 3}}) {
    std::latch joined(ranks), failed(1);
    const std::string reason = "rank 0 waited 50 ms for ";
    run_world(
        ranks,
        [&](const std::shared_ptr<Transport>& transport) {
          joined.arrive_and_wait();
          std::vector<std::byte> bytes(ranks);
          if (transport->rank() != 0) {
            failed.wait();
            const Transport::Outgoing outgoing{0, {bytes.data(), 1}};
            const auto result = transport->exchange({&outgoing, 1}, {});
            ASSERT_FALSE(result.ok());
            EXPECT_EQ(result.error().code, ErrorCode::unavailable);
            EXPECT_THAT(result.error().message, HasSubstr(reason));
            return;
          }
          std::vector<Transport::Incoming> incoming;
          for (const int rank : missing) incoming.push_back({rank, {bytes.data() + rank, 1}});
          const auto result = transport->exchange({}, incoming);
          ASSERT_FALSE(result.ok());
          EXPECT_EQ(result.error().code, ErrorCode::deadline_exceeded);
          EXPECT_THAT(result.error().message, HasSubstr(reason));
          for (const int rank : missing) EXPECT_THAT(result.error().message, HasSubstr(std::to_string(rank)));
          failed.count_down();
        },
        50);
  }
}

// Ranks as processes, one of which is killed once all have said that they are at it.
class TransportDeathTest : public testing::TestWithParam<std::tuple<Backend, int>> {
 protected:
  // `work` calls its second argument when it has begun.
  void kill_one(const std::function<std::string(Group&, const std::function<void()>&)>& work) {
    const auto [backend, killed] = GetParam();
    int begun[2];
    ASSERT_EQ(::pipe(begun), 0);
    const TestWorld world = make_test_world(backend, ranks);
    const auto say = [&] { CHECK(::write(begun[1], "s", 1) == 1); };
    std::vector<pid_t> children;
    for (int rank = 0; rank < ranks; ++rank) {
      children.push_back(fork_rank(world, rank, with_group([&](Group& group) { return work(group, say); })));
    }
    char sign = 0;
    for (int rank = 0; rank < ranks; ++rank) ASSERT_EQ(::read(begun[0], &sign, 1), 1);
    ::kill(children[static_cast<std::size_t>(killed)], SIGKILL);
    for (int rank = 0; rank < ranks; ++rank) {
      const int status = exit_status_of(children[static_cast<std::size_t>(rank)]);
      EXPECT_EQ(status == 0, rank != killed) << "rank " << rank;
    }
    ::close(begun[0]);
    ::close(begun[1]);
  }
};
INSTANTIATE_TEST_SUITE_P(Worlds, TransportDeathTest,
                         testing::Combine(testing::ValuesIn(all_backends), testing::Range(0, ranks)),
                         [](const auto& info) {
                           return fmt::format("{}OfRank{}", name_of(std::get<0>(info.param)), std::get<1>(info.param));
                         });

// Goal: a SIGKILL in the middle is an error of all others, also of those that wait for another rank.
TEST_P(TransportDeathTest, EndsTheWorldOfTheBusy) {
  kill_one([](Group& group, const std::function<void()>& say) {
    std::vector<float> data(100'000);
    auto done = group.all_reduce_tree(data);
    say();
    while (done.ok()) done = group.all_reduce_tree(data);
    return check_loss(done, std::get<int>(GetParam()));
  });
}

// Goal: the same for ranks that wait until one has something to say, which is not the one that dies.
TEST_P(TransportDeathTest, EndsTheWorldOfTheIdle) {
  kill_one([](Group& group, const std::function<void()>& say) {
    const int killed = std::get<int>(GetParam()), next = (group.rank() + 1) % ranks;
    Result<void> done = group.barrier();
    say();
    const auto waited = group.wait_for(next == killed ? (next + 1) % ranks : next, test_timeout_ms);
    if (!waited.ok()) done = waited.error();
    return check_loss(done, killed);
  });
}

// Goal: a part of a message whose sender died is not taken for all of it. Method: it is more than
// rings and sockets hold, and its receiver begins when the sender is dead.
TEST_P(TransportDeathTest, HalfWayThroughAMessageIsNoticed) {
  const auto [backend, sender] = GetParam();
  const int receiver = (sender + 1) % ranks;
  const TestWorld world = make_test_world(backend, ranks);
  constexpr std::size_t bytes = 64'000'000;
  const auto work = with_group([sender = sender, receiver](Group& group) {
    const std::vector<std::byte> message(bytes);
    if (group.rank() == sender) return group.send(message, receiver).ok() ? "sent" : "failed";
    return group.wait_for(receiver, test_timeout_ms).ok() ? "no error" : "";
  });
  std::vector<pid_t> children(ranks);
  for (int rank = 0; rank < ranks; ++rank) {
    if (rank != receiver) children[static_cast<std::size_t>(rank)] = fork_rank(world, rank, work);
  }
  Group group = group_of_all(world.join(receiver));
  ASSERT_TRUE(*group.wait_for(sender, test_timeout_ms));
  ::kill(children[static_cast<std::size_t>(sender)], SIGKILL);
  EXPECT_NE(exit_status_of(children[static_cast<std::size_t>(sender)]), 0);
  std::vector<std::byte> message(bytes);
  EXPECT_EQ(check_loss(group.receive(message, sender), sender), "");
  for (int rank = 0; rank < ranks; ++rank) {
    if (rank != receiver && rank != sender) {
      EXPECT_EQ(exit_status_of(children[static_cast<std::size_t>(rank)]), 0) << rank;
    }
  }
}

}  // namespace
}  // namespace chorus

// How a shared world ends: deadlines, deaths, leaving, aborts, and what is refused.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "dist/group_testing.h"
#include "dist/shared_memory.h"

namespace chorus {
namespace {

using testing::HasSubstr;

Group join_all(const SharedWorld& world, int rank, int timeout_ms = test_timeout_ms) {
  return group_of_all(value_of(world.join(rank, timeout_ms)));
}

std::vector<Group> groups_of(const SharedWorld& world, const std::vector<int>& ranks, int timeout_ms) {
  std::vector<Group> groups;
  for (const int rank : ranks) groups.push_back(join_all(world, rank, timeout_ms));
  return groups;
}

TEST(SharedWorld, ADeadlineNamesTheRanksThatNeverJoined) {
  const auto world = SharedWorld::create(4);
  auto groups = groups_of(*world, {0, 2}, 20);
  const auto result = groups[0].barrier();
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.error().code, ErrorCode::deadline_exceeded);
  EXPECT_THAT(result.error().message, HasSubstr("rank 0 waited 20 ms for ranks 1, 3 to join"));
  const auto other = groups[1].barrier();
  ASSERT_FALSE(other.ok());
  EXPECT_EQ(other.error().code, ErrorCode::unavailable);
  EXPECT_THAT(other.error().message, HasSubstr("ranks 1, 3 to join"));
}

TEST(SharedWorld, ADeadlineNamesTheRanksWhoseBytesAreMissing) {
  auto groups = make_thread_groups(4, 20);
  const std::byte sign{1};
  ASSERT_TRUE(groups[2].send({&sign, 1}, 0).ok());
  std::vector<std::byte> out(4);
  const std::vector<std::size_t> sizes{1, 1, 1, 1};
  const auto result = groups[0].gather_v({&sign, 1}, sizes, out, 0);
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.error().code, ErrorCode::deadline_exceeded);
  EXPECT_THAT(result.error().message, HasSubstr("for ranks 1, 3"));
  EXPECT_EQ(groups[3].barrier().error().code, ErrorCode::unavailable);
}

// Goal: a SIGKILL in the middle is an error of all others soon, not at their deadline (60 s here). Method: ranks 0 to 2
// reduce without end; rank 3 is killed once all are at it. Rank 1 and 2 need not be waiting for rank 3 itself.
TEST(SharedWorld, AKilledProcessEndsTheWorldForAll) {
  const TestWorld world = make_test_world(Backend::shared_memory, 4);
  int started[2];
  ASSERT_EQ(::pipe(started), 0);
  const RankFunction reduce = [&](Group& group) -> std::string {
    std::vector<float> data(100'000);
    for (std::size_t round = 0;; ++round) {
      const auto done = group.all_reduce_tree(data);
      if (round == 0) CHECK(::write(started[1], "s", 1) == 1);
      if (done.ok()) continue;
      if (done.error().code != ErrorCode::unavailable) return "another code: " + done.error().message;
      return done.error().message.find("rank 3 (process") == std::string::npos
                 ? "another reason: " + done.error().message
                 : "";
    }
  };
  std::vector<pid_t> children;
  for (int rank = 0; rank < 4; ++rank) children.push_back(fork_rank(world, rank, with_group(reduce)));
  char sign = 0;
  for (int rank = 0; rank < 4; ++rank) ASSERT_EQ(::read(started[0], &sign, 1), 1);
  ::kill(children[3], SIGKILL);
  const Nanoseconds killed = monotonic_now();
  for (int rank = 0; rank < 3; ++rank) EXPECT_EQ(exit_status_of(children[static_cast<std::size_t>(rank)]), 0) << rank;
  EXPECT_LT(monotonic_now() - killed, 20'000'000'000) << "the deadline, not the death, ended the wait";
  EXPECT_NE(exit_status_of(children[3]), 0);
  ::close(started[0]);
  ::close(started[1]);
}

TEST(SharedWorld, WhatARankSentBeforeItLeftCanBeRead) {
  auto groups = make_thread_groups(2, test_timeout_ms);
  ASSERT_TRUE(groups[1].send_message("the last words", 0).ok());
  groups.pop_back();
  std::string message;
  ASSERT_TRUE(groups[0].receive_message(&message, 1, 100).ok());
  EXPECT_EQ(message, "the last words");
  std::byte more{};
  const auto result = groups[0].receive({&more, 1}, 1);
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.error().code, ErrorCode::unavailable);
  EXPECT_THAT(result.error().message, HasSubstr("rank 1 has left"));
}

TEST(SharedWorld, AnAbortReachesTheSleepers) {
  const auto world = SharedWorld::create(3);
  std::vector<std::unique_ptr<Transport>> ranks;
  for (int rank = 0; rank < 3; ++rank) ranks.push_back(world->join(rank, test_timeout_ms).value());
  const auto expect_aborted = [](const Error& error) {
    EXPECT_EQ(error.code, ErrorCode::unavailable);
    EXPECT_THAT(error.message, HasSubstr("rank 2: out of paper"));
  };
  std::thread exchanging([&] {
    std::byte byte{};
    const Transport::Incoming incoming{1, {&byte, 1}};
    const auto result = ranks[0]->exchange({}, {&incoming, 1});
    ASSERT_FALSE(result.ok());
    expect_aborted(result.error());
  });
  std::thread waiting([&] {
    const auto result = ranks[1]->wait_for(0, test_timeout_ms);
    ASSERT_FALSE(result.ok());
    expect_aborted(result.error());
  });
  ranks[2]->abort("out of paper");
  ranks[2]->abort("a later reason");
  exchanging.join();
  waiting.join();
}

TEST(SharedWorld, WaitForTellsATimeoutFromAByte) {
  auto groups = make_thread_groups(2, test_timeout_ms);
  EXPECT_FALSE(*groups[0].wait_for(1, 5));
  const std::byte sign{7};
  std::thread sender([&] { ASSERT_TRUE(groups[1].send({&sign, 1}, 0).ok()); });
  EXPECT_TRUE(*groups[0].wait_for(1, test_timeout_ms));
  sender.join();
  std::byte seen{};
  ASSERT_TRUE(groups[0].receive({&seen, 1}, 1).ok());
  EXPECT_EQ(seen, sign);
  EXPECT_FALSE(*groups[0].wait_for(1, 0));
}

TEST(SharedWorld, ATooLongMessageIsRefusedAndBreaksTheWorld) {
  auto groups = make_thread_groups(2, test_timeout_ms);
  ASSERT_TRUE(groups[1].send_message("12345", 0).ok());
  std::string message;
  const auto result = groups[0].receive_message(&message, 1, 4);
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.error().code, ErrorCode::invalid_argument);
  EXPECT_THAT(groups[1].barrier().error().message, HasSubstr("5 bytes"));
}

TEST(SharedWorld, TooLongADictionaryIsRefusedOnAllRanks) {
  auto groups = make_thread_groups(2, test_timeout_ms);
  std::vector<NamedTensor> tensors{{std::string(tensor_dictionary_bytes_max, 'n'), {}, {}}}, received;
  EXPECT_EQ(groups[0].broadcast_tensors(&tensors, 0).error().code, ErrorCode::invalid_argument);
  EXPECT_EQ(groups[1].broadcast_tensors(&received, 0).error().code, ErrorCode::unavailable);
}

TEST(SharedWorld, OpenRefusesWhatIsNoWorld) {
  EXPECT_FALSE(SharedWorld::open(-1).ok());
  const int plain = ::memfd_create("plain", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  EXPECT_FALSE(SharedWorld::open(plain).ok());
  ASSERT_EQ(::ftruncate(plain, 1 << 20), 0);
  ASSERT_EQ(::fcntl(plain, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL), 0);
  const auto zeros = SharedWorld::open(plain);
  ASSERT_FALSE(zeros.ok());
  EXPECT_EQ(zeros.error().code, ErrorCode::invalid_argument);
  ::close(plain);
  const int file = ::open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
  EXPECT_FALSE(SharedWorld::open(file).ok());
  ::close(file);
  EXPECT_FALSE(SharedWorld::create(0).ok());
  EXPECT_FALSE(SharedWorld::create(shared_world_ranks_max + 1).ok());
}

TEST(SharedWorld, IsOpenedFromItsDescriptorAndARankJoinsOnce) {
  const auto world = SharedWorld::create(2);
  const auto opened = SharedWorld::open(::dup(world->fd()));
  ASSERT_TRUE(opened.ok());
  EXPECT_EQ(opened->size(), 2);
  Group first = join_all(*world, 0), second = join_all(*opened, 1);
  ASSERT_TRUE(first.send_message("through two mappings", 1).ok());
  std::string message;
  ASSERT_TRUE(second.receive_message(&message, 0, 100).ok());
  EXPECT_EQ(message, "through two mappings");
  EXPECT_FALSE(opened->join(0, 10).ok());
  EXPECT_FALSE(opened->join(2, 10).ok());
}

// Goal: an index that a peer spoiled makes no rank read or write outside the ring. Method: spoil it through a mapping.
TEST(SharedWorld, AnIndexOutsideItsRingIsAnErrorNotARead) {
  for (const bool reading : {true, false}) {
    const auto world = SharedWorld::create(2);
    auto groups = groups_of(*world, {0, 1}, test_timeout_ms);
    const auto memory = SharedMemory::open(world->fd());
    ASSERT_TRUE(memory.ok());
    (*memory)->control(1, 0).written.store((*memory)->ring_bytes() + 1);
    (*memory)->control(0, 1).read.store(2 * (*memory)->ring_bytes());
    std::vector<std::byte> bytes((*memory)->ring_bytes() + 10);
    const auto result = reading ? groups[0].receive(bytes, 1) : groups[0].send(bytes, 1);
    ASSERT_FALSE(result.ok());
    EXPECT_EQ(result.error().code, ErrorCode::unavailable);
    EXPECT_THAT(result.error().message, HasSubstr("outside its ring"));
  }
}

// Goal: pages are taken for the pairs of ranks that talk, no more. Method: count the blocks of the file.
TEST(SharedWorld, OfManyRanksIsSparse) {
  const auto world = SharedWorld::create(64);
  struct stat status {};
  ASSERT_EQ(::fstat(world->fd(), &status), 0);
  EXPECT_LT(status.st_size, off_t{80} << 20);
  EXPECT_LT(status.st_blocks * 512, off_t{64} << 10);
}

}  // namespace
}  // namespace chorus

// How a shared world ends: deadlines, deaths, leaving, aborts, and what is refused.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "parallel/transport/shared_memory.h"
#include "testing/group_testing.h"

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

TEST(SharedWorld, ATooLongMessageIsRefusedAndBreaksTheWorld) {
  auto groups = make_thread_groups(2, test_timeout_ms);
  ASSERT_TRUE(groups[1].send_message("12345", 0).ok());
  std::string message;
  const auto result = groups[0].receive_message(&message, 1, 4);
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.error().code, ErrorCode::invalid_argument);
  EXPECT_THAT(groups[1].barrier().error().message, HasSubstr("5 bytes"));
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

#include "launch/node_worlds.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

namespace chorus {
namespace {

using ::testing::ElementsAre;

ParallelConfig two_by_four() {
  ParallelConfig parallel;
  parallel.data_parallel_size = 4;
  parallel.tensor_parallel_size = 4;
  parallel.data_parallel_start_rank = 2;
  parallel.data_parallel_size_local = 2;
  return parallel;
}

TEST(NodeWorlds, MembersAreTheWorkersOfThisNode) {
  ParallelConfig parallel = two_by_four();
  parallel.nodes_per_replica = 2;
  parallel.node_rank = 1;
  EXPECT_THAT(NodeWorlds(parallel).members(3), ElementsAre(2, 3));
  parallel.enable_expert_parallel = true;  // one world of sixteen
  EXPECT_THAT(NodeWorlds(parallel).members(3), ElementsAre(10, 11, 14, 15));
}

TEST(NodeWorlds, AWorldHasOneMemoryAndTheNextAnother) {
  ParallelConfig parallel = two_by_four();
  parallel.nodes_per_replica = 2;
  NodeWorlds worlds(parallel);
  const auto first = worlds.descriptor(2, 7);
  ASSERT_TRUE(first.ok());
  EXPECT_EQ(*worlds.descriptor(2, 7), *first);
  const auto opened = SharedWorld::open(::dup(*first));
  ASSERT_TRUE(opened.ok());
  EXPECT_EQ(opened->size(), 2);
  EXPECT_NE(*worlds.descriptor(3, 7), *first);
  // Descriptors are used again: what tells is who has joined.
  ASSERT_TRUE(opened->join(0, 1000).ok());
  const auto next = worlds.descriptor(2, 8);
  ASSERT_TRUE(next.ok());
  const auto other = SharedWorld::open(::dup(*next));
  ASSERT_TRUE(other.ok());
  EXPECT_TRUE(other->join(0, 1000).ok());
}

TEST(NodeWorlds, OneAloneNeedsNoMemory) {
  ParallelConfig parallel = two_by_four();
  parallel.nodes_per_replica = 4;
  EXPECT_EQ(*NodeWorlds(parallel).descriptor(2, 1), -1);
}

}  // namespace
}  // namespace chorus

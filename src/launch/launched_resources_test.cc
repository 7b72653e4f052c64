#include "launch/launched_resources.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

namespace chorus {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

NodeResources node_of(int cores, double cpu_limit = 0) {
  NodeResources node;
  node.cpus.resize(static_cast<std::size_t>(cores));
  std::iota(node.cpus.begin(), node.cpus.end(), 0);
  node.cpu_limit = cpu_limit;
  node.memory_available_bytes = std::uint64_t{1} << 30;
  return node;
}

std::vector<Whereabouts> ranks_at(const std::vector<std::string>& identities, int cores) {
  std::vector<Whereabouts> ranks;
  for (const std::string& identity : identities) ranks.push_back(make_whereabouts(identity, node_of(cores)));
  return ranks;
}

EngineConfig config_of(int replicas) {
  EngineConfig config;
  config.parallel.data_parallel_size = replicas;
  return config;
}

const std::vector<std::string> two_and_one = {"boot-a net 0", "boot-a net 0", "boot-b net 0"};

TEST(LaunchedResources, RanksOfOneNodeShareItsCores) {
  const auto ranks = ranks_at(two_and_one, 8);
  const auto first = share_node(config_of(3), node_of(8), ranks, 0);
  ASSERT_TRUE(first.ok());
  EXPECT_EQ(first->ranks_here, 2);
  EXPECT_EQ(first->threads, 4);
  EXPECT_THAT(first->cpus, IsEmpty());
  const auto alone = share_node(config_of(3), node_of(8), ranks, 2);
  ASSERT_TRUE(alone.ok());
  EXPECT_EQ(alone->ranks_here, 1);
  EXPECT_EQ(alone->threads, 8);
}

TEST(LaunchedResources, ACgroupsLimitIsItsNodesAlone) {
  const auto ranks = ranks_at(two_and_one, 8);
  EXPECT_EQ(share_node(config_of(3), node_of(8, 5.5), ranks, 1)->threads, 3);
  EXPECT_EQ(share_node(config_of(3), node_of(8, 5.5), ranks, 2)->threads, 6);
}

TEST(LaunchedResources, ContainersOfOneMachineShareCoresAndNotLimits) {
  const auto ranks = ranks_at({"boot-a net-1 0", "boot-a net-2 0"}, 8);
  const auto resources = share_node(config_of(2), node_of(8), ranks, 0);
  EXPECT_EQ(resources->ranks_here, 1);
  EXPECT_EQ(resources->threads, 4);
  EXPECT_EQ(share_node(config_of(2), node_of(8, 3), ranks, 0)->threads, 3);
}

TEST(LaunchedResources, RanksThatTheLauncherBoundShareNothing) {
  std::vector<Whereabouts> ranks;
  NodeResources low = node_of(4), high = node_of(4);
  for (int& cpu : high.cpus) cpu += 64;
  ranks.push_back(make_whereabouts("boot-a net 0", low));
  ranks.push_back(make_whereabouts("boot-a net 0", high));
  EXPECT_EQ(share_node(config_of(2), low, ranks, 0)->threads, 4);
  EXPECT_EQ(share_node(config_of(2), high, ranks, 1)->threads, 4);
}

// Goal: the sets are each node's. Method: ranks dealt out to two nodes in turn.
TEST(LaunchedResources, CoreSetsAreThoseOfTheNodesOwnRanks) {
  EngineConfig config = config_of(4);
  config.cpu_threads_bind = "0-1|2-4";
  const auto ranks = ranks_at({"a net 0", "b net 0", "a net 0", "b net 0"}, 8);
  EXPECT_THAT(share_node(config, node_of(8), ranks, 1)->cpus, ElementsAre(0, 1));
  EXPECT_THAT(share_node(config, node_of(8), ranks, 2)->cpus, ElementsAre(2, 3));
  EXPECT_EQ(share_node(config, node_of(8), ranks, 3)->threads, 2);
  config.cpu_threads_bind = "0|1|2|3";
  const auto refused = share_node(config, node_of(8), ranks, 0);
  ASSERT_FALSE(refused.ok());
  EXPECT_THAT(refused.error().message, HasSubstr("4 core sets for 2 workers"));
}

// Whoever asks for memory after that gets a part of what the node's own workers share.
TEST(LaunchedResources, MemoryIsSharedByTheNodesOwnRanks) {
  EngineConfig config = config_of(8);
  EXPECT_EQ(*kv_cache_bytes_per_worker(config, node_of(8), 0), (std::uint64_t{1} << 30) / 2 / 8);
  config.parallel.launched_workers = 2;
  EXPECT_EQ(*kv_cache_bytes_per_worker(config, node_of(8), 0), (std::uint64_t{1} << 30) / 2 / 2);
}

}  // namespace
}  // namespace chorus

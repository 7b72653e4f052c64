#include <gtest/gtest.h>

#include <thread>

#include "dist/group.h"
#include "dist/topology.h"

namespace chorus {
namespace {

ParallelConfig sizes(int dp, int pp, int cp, int tp) {
  ParallelConfig parallel;
  parallel.data_parallel_size = dp;
  parallel.pipeline_parallel_size = pp;
  parallel.decode_context_parallel_size = cp;
  parallel.tensor_parallel_size = tp;
  return parallel;
}

TEST(Topology, TpIsFastestAndDpIsSlowest) {
  const Topology topology = *Topology::create(sizes(2, 2, 1, 2), 8);
  EXPECT_EQ(topology.coordinates_of(5), (Coordinates{1, 0, 0, 1}));
  EXPECT_EQ(topology.tp_ranks(5), (std::vector{4, 5}));
  EXPECT_EQ(topology.pp_ranks(5), (std::vector{5, 7}));
  EXPECT_EQ(topology.dp_ranks(5), (std::vector{1, 5}));
  EXPECT_EQ(topology.ep_ranks(5), (std::vector{0, 1, 4, 5}));
  for (int rank = 0; rank < 8; ++rank) EXPECT_EQ(topology.rank_of(topology.coordinates_of(rank)), rank);
}

TEST(Topology, RefusesAWorldThatDoesNotFitWithBothNumbers) {
  const auto topology = Topology::create(sizes(2, 1, 1, 2), 6);
  ASSERT_FALSE(topology.ok());
  EXPECT_NE(topology.error().message.find("= 4 ranks, but the world has 6"), std::string::npos)
      << topology.error().message;
}

// Goal: the sum is the balanced tree, whatever order the threads come in. Method: numbers whose sum depends on the
// order.
TEST(ThreadGroup, AllReduceAddsInTreeOrder) {
  for (const std::size_t size : {1, 2, 4, 8}) {
    auto groups = make_thread_groups(static_cast<int>(size), 10000);
    std::vector<std::vector<float>> data(size);
    for (std::size_t r = 0; r < size; ++r) {
      for (std::size_t i = 0; i < 1000; ++i) {
        data[r].push_back(static_cast<float>((i * 37 + r * 101) % 977) * (r % 2 == 0 ? 1e6F : 1e-3F));
      }
    }
    std::vector<float> expected(1000);
    for (std::size_t i = 0; i < 1000; ++i) {
      std::vector<float> level;
      for (const auto& row : data) level.push_back(row[i]);
      for (std::size_t width = size; width > 1; width /= 2) {
        for (std::size_t j = 0; j < width / 2; ++j) level[j] = level[2 * j] + level[2 * j + 1];
      }
      expected[i] = level[0];
    }
    std::vector<std::thread> threads;
    for (std::size_t r = 0; r < size; ++r) {
      threads.emplace_back([&, r] { ASSERT_TRUE(groups[r].all_reduce_tree(data[r]).ok()); });
    }
    for (auto& thread : threads) thread.join();
    for (const auto& row : data) EXPECT_EQ(row, expected);
  }
}

TEST(ThreadGroup, AMissingRankIsAnErrorInTheOthers) {
  auto groups = make_thread_groups(2, 20);
  std::vector<float> data(3);
  const auto result = groups[0].all_reduce_tree(data);
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.error().code, ErrorCode::deadline_exceeded);
  EXPECT_FALSE(groups[1].barrier().ok());
}

}  // namespace
}  // namespace chorus

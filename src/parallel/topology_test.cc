#include <gtest/gtest.h>

#include "parallel/topology.h"

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

}  // namespace
}  // namespace chorus

// Where experts live: the invariants of every placement, the published example, and how even a skewed load becomes.
#include "layers/expert_rebalance.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "layers/expert_load_window.h"

namespace chorus {
namespace {

using testing::ElementsAre;
using testing::ElementsAreArray;

std::vector<int> slots_of(const ExpertPlacement& placement) {
  std::vector<int> experts;
  for (int slot = 0; slot < placement.slots(); ++slot) experts.push_back(placement.expert_of(slot));
  return experts;
}

TEST(ExpertPlacement, LinearGivesTheFirstRanksOneMoreWhenItDoesNotDivide) {
  const auto placement = ExpertPlacement::create(ExpertPlacementStrategy::linear, 7, 3, 0);
  EXPECT_THAT(placement.experts_of(0), ElementsAre(0, 1, 2));
  EXPECT_THAT(placement.experts_of(1), ElementsAre(3, 4));
  EXPECT_THAT(placement.experts_of(2), ElementsAre(5, 6));
}

TEST(ExpertPlacement, RoundRobinDealsTheExperts) {
  const auto placement = ExpertPlacement::create(ExpertPlacementStrategy::round_robin, 7, 3, 0);
  EXPECT_THAT(placement.experts_of(0), ElementsAre(0, 3, 6));
  EXPECT_THAT(placement.experts_of(1), ElementsAre(1, 4));
  EXPECT_THAT(placement.experts_of(2), ElementsAre(2, 5));
}

TEST(ExpertPlacement, MoreRanksThanExpertsLeavesRanksWithoutSlots) {
  for (const auto strategy : {ExpertPlacementStrategy::linear, ExpertPlacementStrategy::round_robin}) {
    const auto placement = ExpertPlacement::create(strategy, 2, 4, 0);
    EXPECT_EQ(placement.slots(), 2);
    EXPECT_THAT(placement.experts_of(1), ElementsAre(1));
    EXPECT_TRUE(placement.experts_of(3).empty());
  }
}

TEST(ExpertPlacement, MapsSlotsAndExpertsBothWays) {
  for (const auto strategy : {ExpertPlacementStrategy::linear, ExpertPlacementStrategy::round_robin}) {
    for (const int ranks : {1, 2, 3, 5, 8}) {
      for (const int redundant : {0, 1, 7, 20}) {
        const auto placement = ExpertPlacement::create(strategy, 12, ranks, redundant);
        ASSERT_EQ(placement.slots(), 12 + redundant);
        int replicas = 0;
        for (int expert = 0; expert < 12; ++expert) {
          ASSERT_FALSE(placement.replicas(expert).empty());
          replicas += static_cast<int>(placement.replicas(expert).size());
          for (const int slot : placement.replicas(expert)) ASSERT_EQ(placement.expert_of(slot), expert);
        }
        ASSERT_EQ(replicas, placement.slots());
        for (int slot = 0; slot < placement.slots(); ++slot) {
          const int rank = placement.rank_of(slot);
          ASSERT_TRUE(placement.first_slot(rank) <= slot && slot < placement.first_slot(rank + 1));
        }
      }
    }
  }
}

TEST(ExpertPlacement, RowsOfOneRankAndFirstRowsOfManySpreadOverTheReplicas) {
  const ExpertPlacement placement(1, {{0}, {0}, {0}, {0}});
  std::vector<int> by_row(4, 0), by_rank(4, 0);
  for (int i = 0; i < 4000; ++i) {
    ++by_row[static_cast<std::size_t>(placement.slot_for(0, replica_key(0, i)))];
    ++by_rank[static_cast<std::size_t>(placement.slot_for(0, replica_key(i, 0)))];
  }
  EXPECT_THAT(by_row, testing::Each(testing::AllOf(testing::Gt(900), testing::Lt(1100))));
  EXPECT_THAT(by_rank, testing::Each(testing::AllOf(testing::Gt(900), testing::Lt(1100))));
}

TEST(ExpertPlacement, UnevenSlotsAreRefusedForBalancingWithTheNumberThatWouldDo) {
  EXPECT_TRUE(check_expert_balancing(60, 8, 4).ok());
  const auto refused = check_expert_balancing(60, 8, 1);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().message,
            "--eplb-config: 60 experts and num_redundant_experts 1 do not fill 8 expert-parallel ranks evenly; give "
            "num_redundant_experts 4");
}

// The example and its output as published in the README of https://github.com/deepseek-ai/EPLB.
TEST(RebalanceExperts, GivesThePublishedExample) {
  const RebalanceShape shape{16, 4, 2, 8};
  const std::vector<double> first = {90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86};
  const std::vector<double> second = {20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27};
  EXPECT_THAT(slots_of(rebalance_experts(first, shape)),
              ElementsAreArray({5, 6, 5, 7, 8, 4, 3, 4, 10, 9, 10, 2, 0, 1, 11, 1}));
  EXPECT_THAT(slots_of(rebalance_experts(second, shape)),
              ElementsAreArray({7, 10, 6, 8, 6, 11, 8, 9, 2, 4, 5, 1, 5, 0, 3, 1}));
}

// Goal: every answer is a placement: each expert is there, all slots are used, all ranks have equally many, a group
// stays on its node. Method: random loads in random shapes.
TEST(RebalanceExperts, KeepsItsInvariantsForRandomLoads) {
  std::mt19937 random(7);
  for (int round = 0; round < 300; ++round) {
    RebalanceShape shape;
    shape.nodes = 1 << random() % 3;
    shape.ranks = shape.nodes * (1 + static_cast<int>(random() % 4));
    shape.groups = shape.nodes * (1 + static_cast<int>(random() % 3));
    const int experts = shape.groups * (1 + static_cast<int>(random() % 6));
    const int least = (experts + shape.ranks - 1) / shape.ranks * shape.ranks;
    shape.physical = least + static_cast<int>(random() % 3) * shape.ranks;
    std::vector<double> loads;
    for (int e = 0; e < experts; ++e) loads.push_back(static_cast<int>(random() % 5 == 0 ? 0 : random() % 1000));

    const auto placement = rebalance_experts(loads, shape);
    ASSERT_EQ(placement.slots(), shape.physical);
    ASSERT_EQ(placement.experts(), experts);  // and each in at least one slot, which ExpertPlacement checks
    for (int rank = 0; rank < shape.ranks; ++rank) {
      ASSERT_EQ(static_cast<int>(placement.experts_of(rank).size()), shape.physical / shape.ranks);
    }
    const int group_size = experts / shape.groups, ranks_a_node = shape.ranks / shape.nodes;
    std::vector<int> node_of_group(static_cast<std::size_t>(shape.groups), -1);
    for (int slot = 0; slot < placement.slots(); ++slot) {
      int& node = node_of_group[static_cast<std::size_t>(placement.expert_of(slot) / group_size)];
      const int own = placement.rank_of(slot) / ranks_a_node;
      ASSERT_TRUE(node < 0 || node == own);
      node = own;
    }
  }
}

TEST(RebalanceExperts, IgnoresGroupsThatDoNotDivideByTheNodes) {
  const std::vector<double> loads = {9, 1, 1, 1, 1, 1, 1, 1, 1};
  EXPECT_EQ(rebalance_experts(loads, {12, 3, 2, 4}), rebalance_experts(loads, {12, 1, 1, 4}));
}

TEST(RebalanceExperts, ABusyExpertGetsTheReplicas) {
  const std::vector<double> loads = {100, 1, 1, 1};
  EXPECT_THAT(replicate_experts(loads, 8), ElementsAre(0, 1, 2, 3, 0, 0, 0, 0));
}

TEST(KeepSlots, AnExpertThatStaysKeepsItsSlot) {
  const ExpertPlacement before(4, {{0, 1, 2}, {3, 3, 1}}), after(4, {{2, 3, 0}, {1, 0, 3}});
  const auto kept = keep_slots(before, after);
  EXPECT_THAT(kept.experts_of(0), ElementsAre(0, 3, 2));
  EXPECT_THAT(kept.experts_of(1), ElementsAre(3, 0, 1));
}

TEST(ExpertLoadWindow, SumsTheLastSteps) {
  ExpertLoadWindow window(2, 3);
  for (std::uint32_t step = 1; step <= 5; ++step) window.push(std::vector<std::uint32_t>{step, 10 * step});
  EXPECT_THAT(window.totals(), ElementsAre(3 + 4 + 5, 30 + 40 + 50));
}

// Goal: tokens of a skewed router are even over ranks after balancing. Method: 4,096 rows choose 8 of 64 experts by
// Zipf's law (weights 1 / (e + 1)); the placement is made from one batch and measured, replica by replica, on the next.
TEST(RebalanceExperts, AZipfLoadBecomesEven) {
  constexpr int experts = 64, ranks = 8, redundant = 32, rows = 4096, choices = 8;
  std::mt19937 random(11);
  const auto draw = [&random] {
    std::vector<std::vector<int>> batch(rows);
    for (auto& row : batch) {
      std::vector<double> weights(experts);
      for (int e = 0; e < experts; ++e) weights[static_cast<std::size_t>(e)] = 1.0 / (e + 1);
      for (int c = 0; c < choices; ++c) {
        std::discrete_distribution<int> zipf(weights.begin(), weights.end());
        row.push_back(zipf(random));
        weights[static_cast<std::size_t>(row.back())] = 0;
      }
    }
    return batch;
  };
  const auto measure = [](const std::vector<std::vector<int>>& batch, const ExpertPlacement& placement) {
    std::vector<double> tokens(ranks, 0);
    for (std::size_t row = 0; row < batch.size(); ++row) {
      const auto key = replica_key(static_cast<int>(row % ranks), static_cast<std::int64_t>(row / ranks));
      for (const int expert : batch[row])
        ++tokens[static_cast<std::size_t>(placement.rank_of(placement.slot_for(expert, key)))];
    }
    return static_cast<double>(rows) * choices / ranks / *std::ranges::max_element(tokens);
  };
  const auto before = draw(), after = draw();
  std::vector<double> loads(experts, 0);
  for (const auto& row : before) {
    for (const int expert : row) ++loads[static_cast<std::size_t>(expert)];
  }
  const auto plain = ExpertPlacement::create(ExpertPlacementStrategy::linear, experts, ranks, 0);
  const auto balanced = rebalance_experts(loads, {experts + redundant, 1, 1, ranks});
  const double without = measure(after, plain), with = measure(after, balanced);
  std::printf("balancedness: %.3f without, %.3f with %d redundant experts (predicted %.3f)\n", without, with, redundant,
              balancedness(loads, balanced));
  EXPECT_LE(without, 0.6);
  EXPECT_GE(with, 0.95);
}

}  // namespace
}  // namespace chorus

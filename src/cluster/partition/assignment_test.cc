#include "cluster/partition/assignment.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace chorus {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;

TEST(EvenSplit, LargerPartsFirst) {
  EXPECT_THAT(even_split(33, 4), ElementsAre(9, 8, 8, 8));
  EXPECT_THAT(even_split(2, 4), ElementsAre(1, 1, 0, 0));
  EXPECT_THAT(even_split(0, 3), ElementsAre(0, 0, 0));
}

TEST(AssignRanks, ModuloDealsInTurn) {
  EXPECT_THAT(assign_ranks(AssignmentName::modulo, 3, 7), ElementsAre(0, 1, 2, 0, 1, 2, 0));
}

TEST(AssignRanks, ContiguousGivesTheFirstRanksTheLargerShares) {
  EXPECT_THAT(assign_ranks(AssignmentName::contiguous, 4, 6), ElementsAre(0, 0, 1, 1, 2, 3));
}

TEST(AssignRanks, PriorityDealsTheUrgentFirstAndKeepsInputOrderAmongEquals) {
  const std::vector<std::int32_t> priorities{5, 0, 5, -1, 0, 5};  // order: 3 1 4 0 2 5
  EXPECT_THAT(assign_ranks(AssignmentName::priority, 2, 6, priorities), ElementsAre(1, 1, 0, 0, 0, 1));
}

TEST(AssignRanks, DynamicLeavesItToTheBalancer) {
  EXPECT_THAT(assign_ranks(AssignmentName::dynamic, 4, 5), Each(std::nullopt));
}

}  // namespace
}  // namespace chorus

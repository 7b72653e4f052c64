#include "cluster/partition/assignment.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

namespace chorus {
namespace {

using Prompts = std::vector<std::size_t>;

// What `rank` is given when it asks until there is nothing for it.
Prompts drain(Assignment& assignment, int rank, std::size_t count_max = 1000) {
  Prompts taken;
  while (taken.size() < count_max) {
    const auto prompt = assignment.next_for(rank, 0);
    if (!prompt) break;
    taken.push_back(*prompt);
  }
  return taken;
}

TEST(EvenSplit, LargerPartsFirst) {
  EXPECT_EQ(even_split(33, 4), (Prompts{9, 8, 8, 8}));
  EXPECT_EQ(even_split(2, 4), (Prompts{1, 1, 0, 0}));
  EXPECT_EQ(even_split(0, 3), (Prompts{0, 0, 0}));
}

TEST(Assignment, ModuloDealsInTurn) {
  Assignment assignment({AssignmentName::modulo, 3, 0}, 7);
  EXPECT_EQ(assignment.planned(), (Prompts{3, 2, 2}));
  EXPECT_EQ(drain(assignment, 1), (Prompts{1, 4}));
  EXPECT_EQ(drain(assignment, 0), (Prompts{0, 3, 6}));
  EXPECT_EQ(drain(assignment, 2), (Prompts{2, 5}));
  EXPECT_EQ(assignment.remaining(), 0u);
}

TEST(Assignment, ContiguousGivesTheFirstRanksTheLargerShares) {
  Assignment assignment({AssignmentName::contiguous, 4, 0}, 33);
  EXPECT_EQ(assignment.planned(), (Prompts{9, 8, 8, 8}));
  EXPECT_EQ(drain(assignment, 1), (Prompts{9, 10, 11, 12, 13, 14, 15, 16}));
}

TEST(Assignment, PriorityDealsTheUrgentFirstAndKeepsInputOrderAmongEquals) {
  const std::vector<std::int32_t> priorities{5, 0, 5, -1, 0, 5};
  Assignment assignment({AssignmentName::priority, 2, 0}, 6, priorities);  // order: 3 1 4 0 2 5
  EXPECT_EQ(drain(assignment, 0), (Prompts{3, 4, 2}));
  EXPECT_EQ(drain(assignment, 1), (Prompts{1, 0, 5}));
}

TEST(Assignment, DynamicTakesFromTheBackOfTheLongestQueue) {
  Assignment assignment({AssignmentName::dynamic, 3, 0}, 9);  // [0 1 2] [3 4 5] [6 7 8]
  EXPECT_EQ(assignment.next_for(1, 0), 3u);
  EXPECT_EQ(drain(assignment, 0), (Prompts{0, 1, 2, 8, 5, 7, 4, 6}));
  EXPECT_EQ(assignment.next_for(1, 0), std::nullopt);
  EXPECT_EQ(assignment.remaining(), 0u);
}

TEST(Assignment, TheWindowBoundsWhatARankHolds) {
  Assignment assignment({AssignmentName::dynamic, 2, 4}, 100);
  EXPECT_TRUE(assignment.next_for(0, 3).has_value());
  EXPECT_EQ(assignment.next_for(0, 4), std::nullopt);
  EXPECT_TRUE(assignment.next_for(0, 0).has_value());
}

// Every policy, a rank lost half-way (and back later): every prompt is given exactly once.
TEST(Assignment, EveryPromptIsGivenOnceThoughRanksAreLost) {
  for (const auto name :
       {AssignmentName::modulo, AssignmentName::contiguous, AssignmentName::priority, AssignmentName::dynamic}) {
    const std::vector<std::int32_t> priorities(50, 0);
    Assignment assignment({name, 4, 0}, 50, priorities);
    Prompts given = drain(assignment, 2, 5);
    assignment.rank_lost(2);
    EXPECT_EQ(assignment.next_for(2, 0), std::nullopt);
    const auto add = [&](const Prompts& more) { given.insert(given.end(), more.begin(), more.end()); };
    add(drain(assignment, 0, 15));
    assignment.rank_back(2);
    add(drain(assignment, 2));
    assignment.rank_lost(2);
    for (const int rank : {3, 1, 0}) add(drain(assignment, rank));
    std::sort(given.begin(), given.end());
    Prompts all(50);
    std::iota(all.begin(), all.end(), std::size_t{0});
    EXPECT_EQ(given, all) << "policy " << static_cast<int>(name);
  }
}

}  // namespace
}  // namespace chorus

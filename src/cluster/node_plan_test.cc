#include "cluster/node_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace chorus {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Strategy = NodePlanRequest::Strategy;

const std::vector<PlanNode> two_nodes = {{"10.0.0.1", 4, 4}, {"10.0.0.2", 6, 1}};

NodePlanRequest request(Strategy strategy, int ranks, int per_node, double amount) {
  return {strategy, ranks, per_node, amount, "CPU"};
}

TEST(NodePlan, StrictGivesEachNodeItsNumber) {
  EXPECT_THAT(*plan_nodes(request(Strategy::strict, 4, 2, 2), two_nodes),
              ElementsAre("10.0.0.1", "10.0.0.1", "10.0.0.2", "10.0.0.2"));
  EXPECT_THAT(*plan_nodes(request(Strategy::strict, 3, 2, 2), two_nodes),
              ElementsAre("10.0.0.1", "10.0.0.1", "10.0.0.2"));
}

TEST(NodePlan, StrictSkipsANodeThatIsTooSmall) {
  EXPECT_THAT(*plan_nodes(request(Strategy::strict, 3, 3, 2), two_nodes),
              ElementsAre("10.0.0.2", "10.0.0.2", "10.0.0.2"));
}

TEST(NodePlan, StrictSaysWhatWasAskedAndWhatThereIs) {
  const auto plan = plan_nodes(request(Strategy::strict, 4, 4, 2), two_nodes);
  ASSERT_FALSE(plan.ok());
  EXPECT_EQ(plan.error().code, ErrorCode::resource_exhausted);
  EXPECT_THAT(plan.error().message,
              AllOf(HasSubstr("room for 0 of 4"), HasSubstr("CPU 2"), HasSubstr("4 ranks to a node"),
                    HasSubstr("10.0.0.2 has CPU 6 (1 free)"), HasSubstr("=fill")));
}

TEST(NodePlan, FillTakesAnyNodeWithRoom) {
  EXPECT_THAT(*plan_nodes(request(Strategy::fill, 5, 5, 2), two_nodes), ElementsAre("", "", "", "", ""));
  EXPECT_THAT(plan_nodes(request(Strategy::fill, 6, 6, 2), two_nodes).error().message, HasSubstr("room for 5 of 6"));
  EXPECT_THAT(plan_nodes(request(Strategy::fill, 1, 1, 8), two_nodes).error().message, HasSubstr("room for 0 of 1"));
  EXPECT_THAT(plan_nodes(request(Strategy::fill, 1, 1, 1), {}).error().message, HasSubstr("no node"));
}

TEST(NodePlan, ThreadsAreAsManyAsLetAllRanksIn) {
  EXPECT_EQ(threads_that_fit(request(Strategy::strict, 4, 2, 0), 1, two_nodes), 2);
  EXPECT_EQ(threads_that_fit(request(Strategy::fill, 5, 5, 0), 1, two_nodes), 2);
  EXPECT_EQ(threads_that_fit(request(Strategy::fill, 2, 2, 0), 2, two_nodes), 2);
  EXPECT_EQ(threads_that_fit(request(Strategy::fill, 2, 2, 0), 8, two_nodes), 1);
}

}  // namespace
}  // namespace chorus

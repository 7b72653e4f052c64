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

NodePlanRequest request(Strategy strategy, int ranks, int per_node, double amount, int workers = 1) {
  return {strategy, ranks, per_node, workers, amount, "CPU"};
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

TEST(NodePlan, ARanksWorkersAreOnOneNodeUnlessItSpans) {
  const std::vector<PlanNode> three_nodes = {{"10.0.0.1", 3, 3}, {"10.0.0.2", 3, 3}, {"10.0.0.3", 2, 2}};
  EXPECT_THAT(plan_nodes(request(Strategy::fill, 4, 4, 1, 2), three_nodes).error().message,
              AllOf(HasSubstr("room for 3 of 4"), HasSubstr("CPU 2 on one node"), HasSubstr("STRATEGY=span")));
  EXPECT_THAT(*plan_nodes(request(Strategy::span, 4, 4, 1, 2), three_nodes), ElementsAre("", "", "", ""));
  EXPECT_THAT(*plan_nodes(request(Strategy::span, 2, 2, 1, 4), three_nodes), ElementsAre("", ""));
  EXPECT_THAT(plan_nodes(request(Strategy::strict, 4, 2, 1, 2), three_nodes).error().message,
              HasSubstr("STRATEGY=fill or span"));
}

TEST(NodePlan, SpanCountsWorkersOverAllNodes) {
  const auto plan = plan_nodes(request(Strategy::span, 2, 2, 2, 3), two_nodes);
  ASSERT_FALSE(plan.ok());
  EXPECT_EQ(plan.error().code, ErrorCode::resource_exhausted);
  EXPECT_THAT(plan.error().message,
              AllOf(HasSubstr("room for 5 of 6 workers of 2 data parallel ranks, each with CPU 2"),
                    HasSubstr("10.0.0.1 has CPU 4 (4 free), 10.0.0.2 has CPU 6 (1 free)"),
                    ::testing::Not(HasSubstr("STRATEGY"))));
  EXPECT_THAT(plan_nodes(request(Strategy::span, 1, 1, 2, 2), {}).error().message, HasSubstr("room for 0 of 2"));
}

TEST(NodePlan, ThreadsAreAsManyAsLetAllRanksIn) {
  EXPECT_EQ(threads_that_fit(request(Strategy::strict, 4, 2, 0), two_nodes), 2);
  EXPECT_EQ(threads_that_fit(request(Strategy::fill, 5, 5, 0), two_nodes), 2);
  EXPECT_EQ(threads_that_fit(request(Strategy::fill, 2, 2, 0, 2), two_nodes), 2);
  EXPECT_EQ(threads_that_fit(request(Strategy::fill, 2, 2, 0, 8), two_nodes), 1);
  EXPECT_EQ(threads_that_fit(request(Strategy::span, 1, 1, 0, 2), two_nodes), 4);
  EXPECT_EQ(threads_that_fit(request(Strategy::span, 2, 2, 0, 8), two_nodes), 1);
}

TEST(NodePlan, KnowsHowManyWorkersMayShareANode) {
  EXPECT_EQ(workers_on(request(Strategy::fill, 4, 4, 1, 4), two_nodes[1]), 4) << "a second rank does not fit";
  EXPECT_EQ(workers_on(request(Strategy::fill, 1, 1, 1, 2), two_nodes[1]), 2) << "there is one rank";
  EXPECT_EQ(workers_on(request(Strategy::fill, 1, 1, 1, 8), two_nodes[1]), 0);
  EXPECT_EQ(workers_on(request(Strategy::span, 4, 4, 1, 4), two_nodes[1]), 6);
  EXPECT_EQ(workers_on(request(Strategy::span, 1, 1, 1, 4), two_nodes[1]), 4);
}

}  // namespace
}  // namespace chorus

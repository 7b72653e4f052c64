#include "exec/watched_executor.h"

#include <gtest/gtest.h>

namespace chorus {
namespace {

constexpr Nanoseconds ms = 1'000'000;

StepPlan plan_of(std::int32_t start, std::int32_t count, int sequences = 1) {
  StepPlan plan;
  for (int i = 0; i < sequences; ++i) {
    SequencePlan& sequence = plan.sequences.emplace_back();
    sequence.start = start;
    sequence.count = count;
    plan.rows += count;
  }
  return plan;
}

TEST(StepTimeEstimate, CountsRowsAndWhatTheyLookBackAt) {
  EXPECT_EQ(StepTimeEstimate::cost_of({}), 1U);
  EXPECT_EQ(StepTimeEstimate::cost_of(plan_of(10, 1, 4)), 5U);
  EXPECT_EQ(StepTimeEstimate::cost_of(plan_of(1023, 1)), 1 + 1 + 4U);
  EXPECT_EQ(StepTimeEstimate::cost_of(plan_of(0, 512)), 1 + 512 + 512 * 2U);
}

TEST(StepTimeEstimate, ExpectsALongPromptToTakeLongAfterShortSteps) {
  StepTimeEstimate estimate;
  EXPECT_EQ(estimate.expected(100), 0) << "nothing is known";
  for (int i = 0; i < 100; ++i) estimate.step_took(4, 4 * ms);
  EXPECT_NEAR(static_cast<double>(estimate.expected(4)), 4.0 * ms, 1.0);
  EXPECT_NEAR(static_cast<double>(estimate.expected(2000)), 2000.0 * ms, 100.0);
}

TEST(StepTimeEstimate, RisesAtOnceAndComesDownSlowly) {
  StepTimeEstimate estimate;
  estimate.step_took(1, 1 * ms);
  estimate.step_took(1, 50 * ms);
  EXPECT_EQ(estimate.expected(1), 50 * ms);
  estimate.step_took(1, 1 * ms);
  EXPECT_GT(estimate.expected(1), 40 * ms);
  for (int i = 0; i < 100; ++i) estimate.step_took(1, 1 * ms);
  EXPECT_LT(estimate.expected(1), 2 * ms);
}

class ToyExecutor final : public Executor {
 public:
  ExecutorInfo info() const override { return {.plans_in_flight_max = 2}; }
  Result<void> submit(const StepPlan&) override { return {}; }
  Result<void> collect(StepResult*) override { return {}; }
  Result<bool> any_replica(bool) override { return true; }
};

TEST(WatchedExecutor, MovesWithEachStepAndTellsWhatItExpects) {
  const Progress progress(std::make_shared<ProgressPage>());
  const auto executor = make_watched_executor(std::make_unique<ToyExecutor>(), progress);
  StepResult result;
  ASSERT_TRUE(executor->submit(plan_of(0, 1)).ok());
  EXPECT_EQ(progress.sample().expected_step_time, 0);
  ASSERT_TRUE(executor->submit(plan_of(0, 100)).ok());
  ASSERT_TRUE(executor->collect(&result).ok());
  EXPECT_EQ(progress.sample().moves, 1U);
  const Nanoseconds long_step = progress.sample().expected_step_time;
  EXPECT_GT(long_step, 0);
  ASSERT_TRUE(executor->collect(&result).ok());
  EXPECT_EQ(progress.sample().moves, 2U);
  EXPECT_EQ(executor->info().plans_in_flight_max, 2);
  EXPECT_TRUE(*executor->any_replica(false));
}

TEST(WatchedExecutor, IsNoneWhereNobodyWatches) {
  auto executor = std::make_unique<ToyExecutor>();
  const Executor* const bare = executor.get();
  EXPECT_EQ(make_watched_executor(std::move(executor), Progress()).get(), bare);
}

}  // namespace
}  // namespace chorus

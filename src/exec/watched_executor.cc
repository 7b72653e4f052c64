#include "exec/watched_executor.h"

#include <algorithm>
#include <utility>

namespace chorus {
namespace {

class WatchedExecutor final : public Executor {
 public:
  WatchedExecutor(std::unique_ptr<Executor> executor, Progress progress)
      : executor_(std::move(executor)), progress_(std::move(progress)) {}

  ExecutorInfo info() const override { return executor_->info(); }

  Result<void> submit(const StepPlan& plan) override {
    if (costs_.empty()) began_at_ = monotonic_now();
    costs_.push_back(StepTimeEstimate::cost_of(plan));
    show_expected();
    return executor_->submit(plan);
  }

  Result<void> collect(StepResult* result) override {
    CHORUS_TRY_VOID(executor_->collect(result));
    const Nanoseconds now = monotonic_now();
    estimate_.step_took(costs_.front(), now - std::exchange(began_at_, now));
    costs_.pop_front();
    progress_.moved();
    if (!costs_.empty()) show_expected();
    return {};
  }

  Result<bool> any_replica(bool mine) override { return executor_->any_replica(mine); }

 private:
  // Of the dearest plan under way.
  void show_expected() const { progress_.expect_step(estimate_.expected(*std::ranges::max_element(costs_))); }

  std::unique_ptr<Executor> executor_;
  Progress progress_;
  StepTimeEstimate estimate_;
  std::deque<std::uint64_t> costs_;  // of the plans under way
  Nanoseconds began_at_ = 0;         // the oldest of them, or when the one before it ended
};

}  // namespace

std::uint64_t StepTimeEstimate::cost_of(const StepPlan& plan) {
  std::uint64_t cost = 1;
  for (const SequencePlan& sequence : plan.sequences) {
    const auto rows = static_cast<std::uint64_t>(sequence.count);
    const auto context = static_cast<std::uint64_t>(sequence.start) + rows;
    cost += rows + rows * context / context_tokens_per_unit;
  }
  return cost;
}

void StepTimeEstimate::step_took(std::uint64_t cost, Nanoseconds time) {
  const double unit_time = static_cast<double>(time) / static_cast<double>(cost);
  unit_time_ = std::max(unit_time, unit_time_ + (unit_time - unit_time_) * decay);
}

Nanoseconds StepTimeEstimate::expected(std::uint64_t cost) const {
  return static_cast<Nanoseconds>(unit_time_ * static_cast<double>(cost));
}

std::unique_ptr<Executor> make_watched_executor(std::unique_ptr<Executor> executor, const Progress& progress) {
  if (!progress.watched()) return executor;
  return std::make_unique<WatchedExecutor>(std::move(executor), progress);
}

}  // namespace chorus

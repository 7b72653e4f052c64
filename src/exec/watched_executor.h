// An executor that shows its steps: how long the one under way is expected to take, and that it ended.
#pragma once

#include <deque>
#include <memory>

#include "base/clock.h"
#include "base/progress.h"
#include "exec/executor.h"

namespace chorus {

// How long a step takes, from those before it. A row costs 1, and 1 more for each context_tokens_per_unit tokens that
// it looks back at. The price of a unit follows the dearest steps at once and comes down slowly: what is expected is
// rather too long. (A row of a long prompt is cheaper than one of a decode, where the weights are read for it alone.)
class StepTimeEstimate {
 public:
  static constexpr std::uint64_t context_tokens_per_unit = 256;
  static constexpr double decay = 1.0 / 16;

  static std::uint64_t cost_of(const StepPlan& plan);
  void step_took(std::uint64_t cost, Nanoseconds time);
  Nanoseconds expected(std::uint64_t cost) const;  // 0: no step has ended yet

 private:
  double unit_time_ = 0;
};

std::unique_ptr<Executor> make_watched_executor(std::unique_ptr<Executor> executor, const Progress& progress);

}  // namespace chorus

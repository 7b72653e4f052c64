// What the scheduler's tests share: a scheduler with a toy model, stepped by hand or to the end.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "sched/scheduler.h"
#include "testing/toy_pipeline.h"

namespace chorus {

// Everything a client would see of one choice.
struct Outcome {
  std::vector<TokenId> tokens;
  std::vector<PositionLogprobs> logprobs, prompt_logprobs;
  FinishReason finish = FinishReason::none;
  std::optional<TokenId> stop_token;
  bool operator==(const Outcome&) const = default;
};
using Outcomes = std::map<std::pair<RequestId, std::uint32_t>, Outcome>;

class ToyEngine {
 public:
  explicit ToyEngine(const SchedulerConfig& config, PrefixHash hash = prefix_hash)
      : config_(config),
        scheduler_(make_scheduler(config, hash)),
        pipeline_({.kv_blocks = config.kv_blocks,
                   .block_size = config.block_size,
                   .vocab_size = config.vocab_size,
                   .plans_in_flight_max = config.plans_in_flight_max,
                   .kv_pools = config.kv_pools,
                   .kv_pool_tokens = config.kv_pool_tokens,
                   .kv_window = config.kv_window}) {}

  Scheduler& scheduler() { return *scheduler_; }
  const ToyModel& model() const { return pipeline_.model(); }
  const ToyPipeline& pipeline() const { return pipeline_; }
  const StepPlan& plan() const { return *plan_; }                    // the newest
  const std::vector<TokenEvent>& events() const { return events_; }  // of the last step
  StepResult& result() { return pipeline_.newest(); }                // of the newest plan, which is in flight
  Outcomes& outcomes() { return outcomes_; }

  Nanoseconds now = 0;  // told to the scheduler

  // One step, checked: the budget is kept, the invariants hold, positions come without gaps, one finish each.
  void step() {
    while (scheduler_->plans_in_flight() < config_.plans_in_flight_max && begin()) continue;
    end();
  }
  // The same in two halves, so that a test can change result() or act while plans are in flight. False: nothing can be
  // computed now.
  bool begin() {
    const SchedulerStats before = scheduler_->stats();
    plan_ = &scheduler_->schedule(now);
    CHECK(plan_->rows <= config_.max_num_batched_tokens, "{} rows", plan_->rows);
    const auto plans = static_cast<std::uint32_t>(config_.plans_in_flight_max);
    CHECK(plan_->sequences.size() <= (before.running + before.waiting + plans - 1) / plans, "{} of {} sequences",
          plan_->sequences.size(), before.running + before.waiting);
    if (plan_->rows == 0) {
      CHECK(plan_->sequences.empty() && plan_->ended.empty(), "an empty plan names sequences");
      return false;
    }
    pipeline_.submit(*plan_);
    scheduler_->check_invariants();
    return true;
  }
  void end() {
    events_.clear();
    CHECK(pipeline_.in_flight() == static_cast<std::size_t>(scheduler_->plans_in_flight()), "{} plans in flight",
          scheduler_->plans_in_flight());
    if (pipeline_.in_flight() > 0) pipeline_.collect(&result_);
    scheduler_->complete(result_, now, &events_);
    scheduler_->check_invariants();
    for (const TokenEvent& event : events_) collect(event);
  }
  void run() {
    while (scheduler_->has_work()) step();
    CHECK(scheduler_->stats().kv_blocks_free == scheduler_->stats().kv_blocks_total, "blocks are lost");
  }

 private:
  void collect(const TokenEvent& event) {
    Outcome& outcome = outcomes_[{event.request, event.choice}];
    CHECK(outcome.finish == FinishReason::none, "request {} choice {} goes on after its end", event.request,
          event.choice);
    CHECK(event.position == outcome.tokens.size(), "position {} after {} tokens", event.position,
          outcome.tokens.size());
    if (event.token) outcome.tokens.push_back(*event.token);
    if (event.logprobs) outcome.logprobs.push_back(*event.logprobs);
    for (const PositionLogprobs& entry : event.prompt_logprobs) outcome.prompt_logprobs.push_back(entry);
    outcome.finish = event.finish;
    outcome.stop_token = event.stop_token;
  }

  SchedulerConfig config_;
  std::unique_ptr<Scheduler> scheduler_;
  ToyPipeline pipeline_;
  const StepPlan* plan_ = nullptr;
  StepResult result_;
  std::vector<TokenEvent> events_;
  Outcomes outcomes_;
};

}  // namespace chorus

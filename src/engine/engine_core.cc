#include "engine/engine_core.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/log.h"
#include "sched/scheduler.h"

namespace chorus {
namespace {

SchedulerConfig scheduler_config(const EngineConfig& config, const ModelConfig& model, const ExecutorInfo& info,
                                 const PrefixKey& prefix_key) {
  SchedulerConfig scheduler;
  scheduler.max_num_seqs = config.max_num_seqs;
  scheduler.max_num_batched_tokens = config.max_num_batched_tokens;
  scheduler.max_model_len = config.max_model_len > 0 ? config.max_model_len : model.max_position_embeddings;
  scheduler.block_size = info.block_size;
  scheduler.kv_blocks = info.kv_blocks;
  scheduler.plans_in_flight_max = info.plans_in_flight_max;
  scheduler.kv_pools = info.kv_pools;
  scheduler.kv_pool_tokens = info.kv_pool_tokens;
  scheduler.kv_window = info.kv_window;
  scheduler.vocab_size = info.vocab_size;
  scheduler.enable_prefix_caching = config.enable_prefix_caching;
  scheduler.by_priority = config.scheduling_policy == SchedulingPolicy::priority;
  scheduler.eos_token_ids = model.eos_token_ids;
  scheduler.prefix_hash_key = prefix_key.words();
  scheduler.feeds_prefixes = config.load_balancer == LoadBalancerName::prefix_affinity;
  return scheduler;
}

class ScheduledEngine final : public EngineCore {
 public:
  ScheduledEngine(const SchedulerConfig& config, std::unique_ptr<Executor> executor)
      : steps_together_(executor->info().steps_together),
        feeds_prefixes_(config.feeds_prefixes),
        plans_in_flight_max_(config.plans_in_flight_max),
        scheduler_(make_scheduler(config)),
        executor_(std::move(executor)) {}

  void add(Request request) override { scheduler_->add(std::move(request)); }
  bool contains(RequestId request) const override { return scheduler_->contains(request); }
  void abort(RequestId request) override { scheduler_->abort(request); }
  void abort_choice(RequestId request, std::uint32_t choice) override { scheduler_->abort_choice(request, choice); }
  std::size_t abort_client(ClientId client) override { return scheduler_->abort_client(client); }
  bool has_work() const override { return scheduler_->has_work(); }

  void begin_wave(std::uint64_t wave) override { waves_begun_ = std::max(waves_begun_, wave); }
  std::uint64_t waves_ended() const override { return waves_ended_; }
  bool must_step() const override { return steps_together_ ? waves_ended_ < waves_begun_ : has_work(); }

  Result<void> step(Nanoseconds now, std::vector<TokenEvent>* events) override {
    const Nanoseconds entered = monotonic_now();
    if (steps_together_) return step_in_wave(now, entered, events);
    while (scheduler_->plans_in_flight() < plans_in_flight_max_) {
      const StepPlan& plan = scheduler_->schedule(now);
      if (plan.rows == 0) break;
      count_rows(plan.rows);
      CHORUS_TRY_VOID(executor_->submit(plan));
    }
    if (scheduler_->plans_in_flight() > 0) CHORUS_TRY_VOID(executor_->collect(&result_));
    scheduler_->complete(result_, now + monotonic_now() - entered, events);
    ++steps_;
    return {};
  }

  EngineLoad load() const override {
    const SchedulerStats stats = scheduler_->stats();
    EngineLoad load;
    load.waiting = stats.waiting;
    load.running = stats.running;
    load.kv_blocks_free = stats.kv_blocks_free;
    load.kv_blocks_total = stats.kv_blocks_total;
    load.preemptions = stats.preemptions;
    load.prefix_cache_queries = stats.prefix_cache_queries;
    load.prefix_cache_hits = stats.prefix_cache_hits;
    load.prefix_cache_resets = stats.prefix_cache_resets;
    load.steps = steps_;
    load.prompt_tokens = stats.prompt_tokens;
    load.output_tokens = stats.output_tokens;
    load.rows = stats.rows;
    load.steps_by_rows = steps_by_rows_;
    return load;
  }

  void reset_prefix_cache() override { scheduler_->reset_prefix_cache(); }
  bool feeds_prefixes() const override { return feeds_prefixes_; }
  PrefixFeed take_prefix_changes() override { return scheduler_->take_prefix_changes(); }
  PrefixFeed prefixes() override { return scheduler_->prefixes(); }

 private:
  Result<void> step_in_wave(Nanoseconds now, Nanoseconds entered, std::vector<TokenEvent>* events) {
    const StepPlan& plan = scheduler_->schedule(now);
    if (plan.rows > 0) count_rows(plan.rows);
    CHORUS_TRY_VOID(executor_->submit(plan.rows > 0 ? plan : idle_plan_));
    CHORUS_TRY_VOID(executor_->collect(&result_));
    scheduler_->complete(result_, now + monotonic_now() - entered, events);
    ++steps_;
    if (++steps_in_wave_ % wave_vote_steps != 0) return {};
    CHORUS_TRY(const bool goes_on, executor_->any_replica(has_work()));
    if (!goes_on) ++waves_ended_;
    return {};
  }

  void count_rows(std::int32_t rows) {
    const auto* const bound = std::ranges::lower_bound(step_rows_bounds, static_cast<std::uint32_t>(rows));
    ++steps_by_rows_[static_cast<std::size_t>(bound - std::begin(step_rows_bounds))];
  }

  const bool steps_together_;
  const bool feeds_prefixes_;
  const StepPlan idle_plan_ = {};
  std::uint64_t waves_begun_ = 0, waves_ended_ = 0, steps_in_wave_ = 0;
  std::int32_t plans_in_flight_max_;
  std::unique_ptr<Scheduler> scheduler_;
  std::unique_ptr<Executor> executor_;
  StepResult result_;  // kept between steps for its capacity
  std::uint64_t steps_ = 0;
  std::vector<std::uint64_t> steps_by_rows_ = std::vector<std::uint64_t>(std::size(step_rows_bounds) + 1);
};

}  // namespace

std::unique_ptr<EngineCore> make_engine_core(const EngineConfig& config, const ModelConfig& model,
                                             std::unique_ptr<Executor> executor, const PrefixKey& prefix_key) {
  const SchedulerConfig scheduler = scheduler_config(config, model, executor->info(), prefix_key);
  const std::int64_t kv_tokens = kv_shape(scheduler).longest_sequence(scheduler.kv_blocks) * scheduler.block_size;
  if (kv_tokens + 1 < scheduler.max_model_len) {  // the last token's keys are never read
    log(LogLevel::warning,
        "the KV cache holds {} tokens, fewer than max_model_len {}: a request that may need more is refused; raise "
        "--kv-cache-memory or lower --max-model-len",
        kv_tokens, scheduler.max_model_len);
  }
  return std::make_unique<ScheduledEngine>(scheduler, std::move(executor));
}

}  // namespace chorus

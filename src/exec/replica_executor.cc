#include "exec/replica_executor.h"

#include <algorithm>
#include <numeric>

#include "base/check.h"
#include "exec/model_runner.h"
#include "exec/plan_codec.h"

namespace chorus {
namespace {

constexpr int idle_slice_ms = 1'000;
// Results that fit in what any transport buffers between two workers: beyond that the output worker may wait for worker
// 0, which must not be waiting for the pipeline then.
constexpr std::size_t buffered_result_bytes = 16'384;
// An empty message where a plan is due: the replica ends.
const std::string farewell;

Result<std::unique_ptr<ModelRunner>> make_runner(const WorkerSetup& setup, const LoadedWeights& weights) {
  const ParallelConfig& parallel = setup.config.parallel;
  WorkerGroups groups = make_worker_groups(parallel, setup.world_rank, setup.transport, setup.first_world_rank);
  const int shard = weight_shard_of(parallel, groups.at);
  ModelRunner::Options options;
  options.isa = weights.isa;
  options.dtype = weights.dtype;
  options.quantization = weights.quantization;
  options.kv_dtype = compute_kv_dtype(setup.config, weights.dtype);
  options.max_model_len =
      setup.config.max_model_len > 0 ? setup.config.max_model_len : setup.model.max_position_embeddings;
  options.block_size = setup.config.block_size;
  options.kv_cache_bytes = setup.kv_cache_bytes;
  options.threads = std::max(1, setup.threads);
  options.cpus = setup.cpus;
  options.progress = setup.progress;
  options.gpu = setup.world_rank - parallel.data_parallel_start_rank * parallel.replica_size();
  options.rows_max = setup.config.max_num_batched_tokens;
  std::unique_ptr<Checkpoint> checkpoint;
  if (parallel.enable_expert_balancing) {
    CHORUS_TRY(options.balancing, parse_eplb_config(parallel.expert_balancing_config));
    CHORUS_TRY(checkpoint, open_weights_of(setup.config, setup.model, weights.dtype));
  }
  return ModelRunner::create(setup.model, options, parallel, shard, {weights.shard(shard), weights.shard_bytes(shard)},
                             checkpoint.get(), std::move(groups));
}

class ReplicaExecutor final : public Executor {
 public:
  ReplicaExecutor(std::unique_ptr<ModelRunner> runner, const ExecutorInfo& info, const FaultPoint& fault)
      : runner_(std::move(runner)), info_(info), fault_(fault) {}
  ~ReplicaExecutor() override {
    fault_.pass("told-to-end");
    // Nothing may be left under way: the transport may go on serving others.
    while (!broken_ && !expected_bytes_.empty()) broken_ = !receive_result().ok();
    std::string message = farewell;
    if (!broken_) (void)replica().broadcast_message(&message, 0, plan_bytes_max);
  }

  ExecutorInfo info() const override { return info_; }

  Result<void> submit(const StepPlan& plan) override {
    auto submitted = submit_to_all(plan);
    broken_ = broken_ || !submitted.ok();
    return submitted;
  }

  Result<bool> any_replica(bool mine) override {
    Group& dp = runner_->groups().dp;
    const auto own = static_cast<std::byte>(mine);
    votes_.resize(static_cast<std::size_t>(dp.size()));
    const auto voted = dp.all_gather_bytes({&own, 1}, votes_);
    broken_ = broken_ || !voted.ok();
    if (!voted.ok()) return voted.error();
    return std::ranges::any_of(votes_, [](std::byte vote) { return vote != std::byte{0}; });
  }

  Result<void> collect(StepResult* result) override {
    CHECK(in_flight_ > 0, "collect without a plan in flight");
    if (early_.empty()) {
      auto received = receive_result();
      broken_ = broken_ || !received.ok();
      if (!received.ok()) return received.error();
    }
    std::swap(*result, early_.front());
    spare_.push_back(std::move(early_.front()));
    early_.erase(early_.begin());
    --in_flight_;
    return {};
  }

 private:
  Group& replica() { return runner_->groups().replica; }

  Result<void> submit_to_all(const StepPlan& plan) {
    CHECK(in_flight_ < info_.plans_in_flight_max, "{} plans in flight", in_flight_);
    while (std::accumulate(expected_bytes_.begin(), expected_bytes_.end(), std::size_t{0}) > buffered_result_bytes) {
      CHORUS_TRY_VOID(receive_result());
    }
    fault_.pass("idle");
    if (replica().size() > 1) {
      message_ = encoder_.encode(plan);
      CHORUS_TRY_VOID(replica().broadcast_message(&message_, 0, plan_bytes_max));
    }
    ++in_flight_;
    StepResult own = take_spare();
    fault_.pass("plan-received");
    CHORUS_TRY_VOID(runner_->execute(plan, &own));
    fault_.pass("layers-done");
    if (runner_->groups().is_output()) {
      early_.push_back(std::move(own));
    } else {
      spare_.push_back(std::move(own));
      expected_bytes_.push_back(result_bytes_max(plan));
    }
    fault_.pass("step-done");
    return {};
  }

  // The oldest result that has not come yet.
  Result<void> receive_result() {
    CHORUS_TRY_VOID(replica().receive_message(&message_, runner_->groups().output_rank(), plan_bytes_max));
    StepResult result = take_spare();
    CHORUS_TRY_VOID(decode_result(message_, &result));
    early_.push_back(std::move(result));
    expected_bytes_.erase(expected_bytes_.begin());
    return {};
  }

  StepResult take_spare() {
    if (spare_.empty()) return {};
    StepResult result = std::move(spare_.back());
    spare_.pop_back();
    return result;
  }

  std::unique_ptr<ModelRunner> runner_;
  ExecutorInfo info_;
  FaultPoint fault_;
  PlanEncoder encoder_;
  std::string message_;
  std::vector<std::byte> votes_;
  int in_flight_ = 0;
  std::vector<std::size_t> expected_bytes_;  // of results that have not come, oldest first; upper bounds
  std::vector<StepResult> early_;            // here and not collected, oldest first
  std::vector<StepResult> spare_;            // kept for their capacity
  bool broken_ = false;
};

// The next message of worker 0. Idle for as long as it takes.
Result<void> wait_for_plan(Group& replica, const std::function<bool()>& interrupted, std::string* message) {
  while (true) {
    CHORUS_TRY(const bool there, replica.wait_for(0, idle_slice_ms));
    if (there) return replica.receive_message(message, 0, plan_bytes_max);
    if (interrupted && interrupted()) return fail(ErrorCode::cancelled, "interrupted");
  }
}

Result<void> follow(ModelRunner* runner, const PlanLimits& limits, FaultPoint fault,
                    const std::function<bool()>& interrupted) {
  Group& replica = runner->groups().replica;
  PlanDecoder decoder(limits);
  StepResult result;
  std::string message;
  while (true) {
    fault.pass("idle");
    CHORUS_TRY_VOID(wait_for_plan(replica, interrupted, &message));
    if (message == farewell) {
      fault.pass("told-to-end");
      return {};
    }
    CHORUS_TRY(const StepPlan* plan, decoder.decode(message));
    fault.pass("plan-received");
    CHORUS_TRY_VOID(runner->execute(*plan, &result));
    fault.pass("layers-done");
    if (runner->groups().is_output()) CHORUS_TRY_VOID(replica.send_message(encode_result(result), 0));
    fault.pass("step-done");
  }
}

}  // namespace

Result<std::unique_ptr<Executor>> make_replica_executor(const WorkerSetup& setup, const LoadedWeights& weights) {
  CHORUS_TRY(auto runner, make_runner(setup, weights));
  CHECK(runner->groups().replica.rank() == 0, "worker {} is not the first of its replica", setup.world_rank);
  ExecutorInfo info;
  info.kv_pools = runner->groups().cp_size;
  info.kv_pool_tokens = attention_partition_keys;
  info.kv_window = runner->kv_window();
  info.kv_blocks = runner->kv_blocks() * info.kv_pools;
  info.block_size = setup.config.block_size;
  info.vocab_size = setup.model.vocab_size;
  info.steps_together = setup.config.parallel.replicas_step_together();
  info.plans_in_flight_max = info.steps_together ? 1 : runner->groups().pp_size;
  FaultPoint fault = setup.fault;
  fault.pass("made");
  return std::unique_ptr<Executor>(std::make_unique<ReplicaExecutor>(std::move(runner), info, fault));
}

Result<void> run_worker(const WorkerSetup& setup, const LoadedWeights& weights,
                        const std::function<bool()>& interrupted) {
  const auto ran = [&]() -> Result<void> {
    CHORUS_TRY(auto runner, make_runner(setup, weights));
    FaultPoint fault = setup.fault;
    fault.pass("made");
    const PlanLimits limits{setup.model.vocab_size, runner->kv_blocks() * runner->groups().cp_size,
                            setup.config.block_size, runner->kv_window().tables};
    return follow(runner.get(), limits, fault, interrupted);
  }();
  if (!ran.ok() && setup.transport) setup.transport->abort(ran.error().message);
  return ran;
}

}  // namespace chorus

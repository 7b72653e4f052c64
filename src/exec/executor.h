// The executor seam: a StepPlan in, sampled tokens out. Production runs the model on the workers of the replica
// (replica_executor.h); the simulator runs a toy model whose tokens are a hash of the request's whole state.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/numerics.h"
#include "base/result.h"
#include "sched/kv_shape.h"
#include "sched/step_plan.h"

namespace chorus {

// What the scheduler must know of what is behind the executor.
struct ExecutorInfo {
  std::int32_t kv_blocks = 0;  // blocks of block_size tokens this executor can hold, over all pools
  std::int32_t block_size = 16;
  std::int32_t vocab_size = 0;
  std::int32_t plans_in_flight_max = 1;  // pipeline stages
  // The replica computes its experts together with others (design.md section 2): while a wave lasts every step submits
  // a plan, one without rows if there is no work.
  bool steps_together = false;
  // Context parallelism: the keys of a sequence go to `kv_pools` ranks round-robin, kv_pool_tokens at a time. Block i
  // of a sequence must belong to pool (i * block_size / kv_pool_tokens) % kv_pools, and block b belongs to pool b %
  // kv_pools.
  std::int32_t kv_pools = 1;
  std::int32_t kv_pool_tokens = attention_partition_keys;
  KvWindow kv_window = {};  // of the layers that have a sliding window
};

class Executor {
 public:
  virtual ~Executor() = default;
  virtual ExecutorInfo info() const = 0;
  // Begins to compute every row of the plan, and to sample where the plan says so. What the plan points to is not used
  // after the call. At most plans_in_flight_max plans are submitted and not collected (CHECK). An error is the death of
  // the replica.
  virtual Result<void> submit(const StepPlan& plan) = 0;
  // Waits for the result of the oldest submitted plan. What concerns one sequence alone (NaN logits) is in its
  // SequenceResult. `result` keeps its capacity between calls.
  virtual Result<void> collect(StepResult* result) = 0;
  // Whether any of the replicas that step together says so; all of them ask after the same step.
  virtual Result<bool> any_replica(bool mine) { return mine; }
};

}  // namespace chorus

// The executor seam: a StepPlan in, sampled tokens out. Production runs the model (uniproc here; multiproc, external launcher
// and Ray later); the simulator runs a toy model whose tokens are a hash of the request's whole state.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "config/engine_config.h"
#include "config/model_config.h"
#include "kernels/isa.h"
#include "sched/step_plan.h"
#include "weights/arena.h"

namespace chorus {

// What the scheduler must know of the memory behind the executor.
struct ExecutorInfo {
  std::int32_t kv_blocks = 0;        // blocks of block_size tokens this executor can hold
  std::int32_t block_size = 16;
  std::int32_t vocab_size = 0;
};

class Executor {
 public:
  virtual ~Executor() = default;
  virtual ExecutorInfo info() const = 0;
  // Computes every row of the plan and samples where the plan says so. An error is the death of the replica; what concerns one
  // sequence alone (NaN logits) is in its SequenceResult. `result` keeps its capacity between calls.
  virtual Result<void> execute(const StepPlan& plan, StepResult* result) = 0;
};

// Packs every weight of the model for `isa` and `dtype` into one sealed memory file that all replicas of this node map.
// `threads` share the work. Errors name file and tensor.
struct LoadedWeights {
  WeightArena arena;
  Isa isa = Isa::scalar;
  DType dtype = DType::bfloat16;
};
// `interrupted` may be empty; asked between tensors, and true ends the loading with ErrorCode::cancelled.
Result<LoadedWeights> load_weights(const EngineConfig& config, const ModelConfig& model, int threads,
                                   const std::function<bool()>& interrupted = {});

// One worker in this process. `cpus`: one a thread, or empty.
Result<std::unique_ptr<Executor>> make_uniproc_executor(const EngineConfig& config, const ModelConfig& model,
                                                        const LoadedWeights& weights, int threads, const std::vector<int>& cpus);

}  // namespace chorus

// What a layer needs to compute: the worker's device and the groups it speaks in. Values handed down, nothing
// process-wide.
#pragma once

#include "base/progress.h"
#include "config/reduction_segments.h"
#include "kernels/cpu_device.h"
#include "kernels/ops.h"
#include "layers/expert_placement.h"
#include "parallel/group.h"

namespace chorus {

class ExpertSlots;

struct LayerContext {
  Device& device;
  Group& tp;
  // Experts live whole on the ranks of this group, of which the tensor-parallel group is a part; null: no expert
  // parallelism.
  Group* ep = nullptr;
  // Where the experts are that move while serving; null: they lie with the other weights.
  ExpertSlots* expert_slots = nullptr;
  // The ranks that share the KV cache of a sequence and compute the same rows; null where each has all of it.
  Group* cp = nullptr;
  Progress progress = {};  // moves with each layer

  // For what is computed on CPUs alone.
  CpuDevice& cpu() const { return cpu_of(device); }
};

// Where a rank stands in its tensor-parallel group; enough to declare parameters.
struct TensorParallel {
  int rank = 0;
  int size = 1;
};

// Where a rank stands in its expert-parallel group (dp x tp ranks of one pipeline stage); enough to declare parameters.
struct ExpertParallel {
  int rank = 0;
  int size = 1;  // 1: no expert parallelism, experts are cut over the tensor-parallel group like dense layers
  ExpertPlacementStrategy strategy = ExpertPlacementStrategy::linear;
  ExpertSlots* slots = nullptr;  // experts are declared there, so that they can move; null: with the other weights
};

}  // namespace chorus

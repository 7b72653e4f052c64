// The same work at several data-parallel sizes.
//
// A fair comparison: every size has the same prompts, the same number of threads a replica, pinned to its own cores
// where there are enough, and a fresh fleet each time (so that no cache is warm). Sizes take turns (1, 2, 4, 1, 2, 4,
// ...), so that a machine that gets slower or faster meanwhile does so for all; of each size the median run counts.
#pragma once

#include <vector>

#include "bench/workload.h"

namespace chorus {

struct ScalingOptions {
  EngineConfig engine;
  BenchShape shape;
  int num_prompts = 256;
  std::vector<int> sizes = {1, 2};  // different ones, from 1 on
};

// Efficiency is against the smallest size. Of the runs at each size, in turn, the median counts.
Result<BenchResult> measure_scaling(const ScalingOptions& options, const BenchModel& model, const BenchHooks& hooks);

}  // namespace chorus

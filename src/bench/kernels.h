// The products of one layer and of the output matrix against the machine's limits, which are measured in the same run.
#pragma once

#include "bench/workload.h"

namespace chorus {

struct KernelOptions {
  EngineConfig engine;
  int num_iters = 5;  // measurements of each product; their median counts
};

Result<BenchResult> measure_kernels(const KernelOptions& options, const ModelConfig& model, const BenchHooks& hooks);

}  // namespace chorus

// All prompts at once: how fast they are done.
#pragma once

#include <vector>

#include "bench/workload.h"

namespace chorus {

struct ThroughputOptions {
  EngineConfig engine;
  BenchShape shape;
  int num_prompts = 256;              // random ones
  std::vector<GenerationInput> rows;  // what is run instead, the same each time, unless empty
};

// Of the iterations the median counts.
Result<BenchResult> measure_throughput(const ThroughputOptions& options, const BenchModel& model,
                                       const BenchHooks& hooks);

}  // namespace chorus

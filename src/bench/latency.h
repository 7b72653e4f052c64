// One batch after the other: the time until every prompt has its first token, and the time a token after that.
#pragma once

#include "bench/workload.h"

namespace chorus {

struct LatencyOptions {
  EngineConfig engine;
  BenchShape shape;
  int batch_size = 8;
};

Result<BenchResult> measure_latency(const LatencyOptions& options, BenchModel model, const BenchHooks& hooks);

}  // namespace chorus

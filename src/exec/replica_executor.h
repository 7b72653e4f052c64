// The executor of a replica of one or several workers, and what the other workers run.
//
// The engine process is worker 0 of its replica (docs/decisions/005). A submitted plan is broadcast to the other
// workers, then every worker computes its part; the output worker's result comes back to worker 0. With pipeline stages
// several plans are under way, one per stage. What kind of processes the workers are, and who started them, is not
// known here.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "base/progress.h"
#include "config/fault_point.h"
#include "exec/executor.h"
#include "exec/load_weights.h"
#include "exec/worker_groups.h"

namespace chorus {

// What one worker needs to start.
struct WorkerSetup {
  EngineConfig config;
  ModelConfig model;
  int world_rank = 0;
  std::uint64_t kv_cache_bytes = 0;  // of this worker
  int threads = 1;
  std::vector<int> cpus = {};  // one per thread, or empty: not pinned
  // Joins the world ranks from first_world_rank on: those of the replica, or of all where the transport is the whole
  // world; null for a replica of one.
  std::shared_ptr<Transport> transport = {};
  int first_world_rank = 0;
  FaultPoint fault = {};   // where this worker dies, in a test
  Progress progress = {};  // where it shows its own
};

// For worker 0. `weights` outlive it. Waits for the other workers to begin. Its destructor tells them to end.
Result<std::unique_ptr<Executor>> make_replica_executor(const WorkerSetup& setup, const LoadedWeights& weights);

// For the others: computes what worker 0 sends, until that says it is over (ok), a worker is gone or `interrupted`
// (asked every second while idle) says so. An error of this worker ends the whole replica: worker 0's next call fails
// with it.
Result<void> run_worker(const WorkerSetup& setup, const LoadedWeights& weights,
                        const std::function<bool()>& interrupted);

}  // namespace chorus

// Starting a fleet with its surroundings given: what launch_fleet() does with the real ones, and tests with a toy's.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/result.h"
#include "cluster/supervisor.h"
#include "exec/executor.h"
#include "exec/load_weights.h"
#include "fleet/fleet.h"
#include "fleet/replica_source.h"
#include "request/prefix_hash.h"
#include "worker/child_process.h"

namespace chorus {

// load_weights() of exec/load_weights.h, or a test's.
using WeightLoader = std::function<Result<LoadedWeights>(const EngineConfig& config, const ModelConfig& model,
                                                         const std::vector<int>& shards, int threads,
                                                         const std::function<bool()>& interrupted)>;

// From the system. It decides no output and no plan.
PrefixKey random_prefix_key();

struct FleetSetup {
  WeightLoader load_weights;
  SupervisorLimits supervisor;
  // Asked every 100 ms while engines start: true: the start fails, `cancelled`. Where this machine's workers join
  // singly it is asked by another thread too, until the fleet's end: true ends them.
  std::function<bool()> interrupted = {};
  // A rank is of the first that brings it; each must be of one. Empty: this process spawns all.
  ReplicaSources sources = {};
  PrefixKey prefix_key = random_prefix_key();  // of the engines and their clients
  std::string engine_program = this_program;   // the path of what engines here are started from (worker/process_main.h)
};

// Deadlines from the configuration, back-off and budget of restarts as they are for users.
SupervisorLimits supervisor_limits(const EngineConfig& config);

Result<std::unique_ptr<HostedFleet>> start_fleet(const EngineConfig& config, const ModelConfig& model,
                                                 FleetSetup setup);

}  // namespace chorus

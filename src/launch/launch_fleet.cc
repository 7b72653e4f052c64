#include "launch/launch_fleet.h"

#include "fleet/spawned_replicas.h"
#include "launch/joining_replicas.h"
#include "launch/ray_replicas.h"

namespace chorus {

ReplicaSources sources_of(const EngineConfig& config) {
  const ParallelConfig& parallel = config.parallel;
  ReplicaSources sources;
  if (config.on_ray()) {
    sources.push_back(std::make_unique<RayReplicas>());
    return sources;
  }
  // Of workers that join singly this machine's come as another node's do.
  if (!parallel.workers_join_singly()) sources.push_back(std::make_unique<SpawnedReplicas>());
  if (parallel.several_nodes()) sources.push_back(std::make_unique<JoiningReplicas>());
  return sources;
}

Result<FleetSetup> launch_setup(const EngineConfig& config, const ModelConfig& model,
                                const std::function<bool()>& interrupted) {
  if (config.distributed_executor_backend == "external_launcher") {
    return fail(
        ErrorCode::invalid_argument,
        "--distributed-executor-backend external_launcher is for chorus generate under torchrun, mpirun or srun; "
        "use mp, which starts its workers itself");
  }
  if (config.headless) {
    return fail(ErrorCode::invalid_argument,
                "--headless is chorus serve's: this command is the front end; leave it out");
  }
  return FleetSetup{load_weights, supervisor_limits(config), interrupted, sources_of(settled(config, model))};
}

Result<std::unique_ptr<Fleet>> launch_fleet(const EngineConfig& config, const ModelConfig& model,
                                            const std::function<bool()>& interrupted) {
  CHORUS_TRY(FleetSetup setup, launch_setup(config, model, interrupted));
  CHORUS_TRY(auto fleet, start_fleet(config, model, std::move(setup)));
  return std::unique_ptr<Fleet>(std::move(fleet));
}

}  // namespace chorus

// The real surroundings: weights from the model's directory, the model's executor in the engine process.
#include <optional>
#include <utility>

#include "fleet/engine_process.h"
#include "fleet/fleet_setup.h"

namespace chorus {
namespace {

Result<StartedReplica> start_replica(const EngineStart& start, const LoadedWeights& weights, const SharedWorld* world) {
  const int replica_size = start.config.parallel.replica_size();
  const int world_rank = start.dp_rank * replica_size;
  std::optional<SharedWorld> own;
  StartedReplica replica;
  std::shared_ptr<Transport> transport;
  FaultPoint fault = fault_point_of(start, world_rank);
  fault.pass("configured");
  if (world == nullptr && replica_size > 1) {
    CHORUS_TRY(own, SharedWorld::create(replica_size));
    world = &*own;
  }
  if (world != nullptr) {
    CHORUS_TRY(transport,
               world->join(world_rank - first_world_rank(start, world_rank), start.config.engine_heartbeat_timeout_ms));
  }
  fault.pass("joined");
  if (replica_size > 1) {
    CHORUS_TRY(replica.workers, WorkerProcesses::start(start, weights, *world));
  }
  CHORUS_TRY(replica.executor, make_replica_executor(worker_setup(start, world_rank, std::move(transport)), weights));
  return replica;
}

}  // namespace

Result<std::unique_ptr<Fleet>> Fleet::start(const EngineConfig& config, const ModelConfig& model,
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
  const auto load = [&interrupted](const EngineConfig& engine, const ModelConfig& weights_of, int threads) {
    return load_weights(engine, weights_of, threads, interrupted);
  };
  return start_fleet(config, model, FleetSetup{load, supervisor_limits(config), interrupted, {}});
}

int engine_process_main(int socket_fd) {
  return engine_process_main(socket_fd, start_replica);
}

}  // namespace chorus

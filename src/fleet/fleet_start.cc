// The real surroundings: weights from the model's directory, the model's executor in the engine process.
#include <utility>

#include "fleet/child_start.h"
#include "fleet/engine_process.h"
#include "fleet/fleet_setup.h"
#include "fleet/spread_world.h"

namespace chorus {
namespace {

// The memory that a replica shares with those that it steps together with, or of its own.
Result<SharedWorld> memory_of(const EngineStart& start, Connection* connection) {
  if (!start.config.parallel.replicas_step_together()) return SharedWorld::create(start.config.parallel.replica_size());
  CHORUS_TRY(Frame frame, receive_with_descriptor(connection, MessageType::world, "WORLD"));
  return SharedWorld::open(frame.descriptor.release());
}

Result<StartedReplica> start_replica(const EngineStart& start, const LoadedWeights& weights, Connection* connection) {
  const ParallelConfig& parallel = start.config.parallel;
  const int world_rank = start.dp_rank * parallel.replica_size();
  StartedReplica replica;
  std::shared_ptr<Transport> transport;
  FaultPoint fault = fault_point_of(start, world_rank);
  fault.pass("configured");
  if (start.world_spans_nodes()) {
    CHORUS_TRY(transport, join_spread_world(connection, start, world_rank));
    fault.pass("joined");
  } else if (parallel.replica_size() > 1 || parallel.replicas_step_together()) {
    CHORUS_TRY(const SharedWorld world, memory_of(start, connection));
    CHORUS_TRY(transport,
               world.join(world_rank - first_world_rank(start, world_rank), start.config.engine_heartbeat_timeout_ms));
    fault.pass("joined");
    if (parallel.replica_size() > 1) {
      CHORUS_TRY(replica.workers, WorkerProcesses::start(start, weights, world));
    }
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
  return start_fleet(config, model, FleetSetup{load_weights, supervisor_limits(config), interrupted, {}});
}

int engine_process_main(int socket_fd) {
  return engine_process_main(socket_fd, start_replica);
}

}  // namespace chorus

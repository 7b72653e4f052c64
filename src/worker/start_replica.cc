// What an engine process really runs: the model's executor, with its workers' processes.
#include <utility>

#include "worker/child_start.h"
#include "worker/engine_process.h"
#include "worker/process_main.h"
#include "worker/spread_world.h"

namespace chorus {
namespace {

// The memory of a replica, or the one that it shares with those that it steps together with.
Result<SharedWorld> memory_of(const EngineStart& start, Connection* connection) {
  if (!start.config.parallel.replicas_step_together()) return SharedWorld::create(start.config.parallel.replica_size());
  CHORUS_TRY(Frame frame, receive_with_descriptor(connection, MessageType::world, "WORLD"));
  return SharedWorld::open(frame.descriptor.release());
}

Result<StartedReplica> start_replica(const EngineStart& start, const LoadedWeights& weights, Connection* connection,
                                     const ProgressMemory& progress) {
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
      CHORUS_TRY(replica.workers, WorkerProcesses::start(start, weights, world, progress));
    }
  }
  WorkerSetup setup = worker_setup(start, world_rank, std::move(transport));
  setup.progress = progress.progress();
  CHORUS_TRY(replica.executor, make_replica_executor(setup, weights));
  return replica;
}

}  // namespace

int engine_process_main(int socket_fd) {
  return engine_process_main(socket_fd, start_replica);
}

}  // namespace chorus

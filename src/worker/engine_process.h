// The inside of an engine process: one EngineCore behind one socket. engine_process_main(int) in fleet.h is this with
// the real executor; a test program gives a toy.
#pragma once

#include <functional>
#include <memory>

#include "base/result.h"
#include "exec/executor.h"
#include "exec/load_weights.h"
#include "protocol/messages.h"
#include "worker/progress_memory.h"
#include "worker/worker_processes.h"

namespace chorus {

// An executor and the processes behind it. The executor goes first: it tells them to end.
struct StartedReplica {
  std::unique_ptr<WorkerProcesses> workers = {};  // null: none but this process
  std::unique_ptr<Executor> executor = {};
  // Whether what it stands on is there still: asked every 100 ms at least, at work and idle. Empty: nothing to ask.
  std::function<Result<void>()> check = {};
};
// `connection`: to the parent, which has said CONFIG; a replica whose world is others' too hears of it there.
// `progress`: where its workers show theirs.
using ReplicaFactory = std::function<Result<StartedReplica>(const EngineStart& start, const LoadedWeights& weights,
                                                            Connection* connection, const ProgressMemory& progress)>;

// Speaks the protocol of messages.h on `socket_fd` until SHUTDOWN, the fleet's end, or an error; returns the exit
// status: 0 told to end or the fleet is gone, 1 failed while running, 2 the configuration cannot work (a restart would
// not help).
//
// Between steps it takes what has come and never waits while there is work; idle, it waits for the socket. A token and
// the finish it causes are one event. A report of its load goes out with a change, at most every 20 ms.
int engine_process_main(int socket_fd, const ReplicaFactory& factory);

// The same for an engine that the fleet has not started: in a process, or a thread, of somebody else, whose signals and
// limits it leaves alone, with its own weights. Serves until SHUTDOWN, the fleet's end (ok, both) or an error, which
// the fleet hears as the last words. `profile`: numerics_profile() of its weights and configuration.
using OwnReplicaFactory = std::function<Result<StartedReplica>(const EngineStart& start)>;
Result<void> serve_engine(Connection* connection, const std::string& profile, const OwnReplicaFactory& factory);

// "amx-bf16/bfloat16": one string for all replicas of a fleet, or their outputs could differ.
std::string numerics_profile(const LoadedWeights& weights, const EngineConfig& config);

}  // namespace chorus

// The other workers of an engine's replica, as processes on this node that the engine starts, watches and ends. They
// share its weights and meet it in the memory of a SharedWorld; both are handed over as descriptors.
//
//   worker -> engine                       engine -> worker
//   HELLO   right after its start          CONFIG  answers HELLO; the weights' descriptor comes along
//   READY   it has joined the world        WORLD   the world's descriptor
//   FATAL   its last words
// What is computed goes through the world.
#pragma once

#include <poll.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "exec/replica_executor.h"
#include "net/connection.h"
#include "parallel/transport/transport.h"
#include "protocol/messages.h"
#include "worker/child_process.h"
#include "worker/progress_memory.h"

namespace chorus {

class WorkerProcesses {
 public:
  // Starts workers 1 .. replica_size - 1 of the replica `start` is for, and waits until each has joined `world`.
  // Errors: one of them ended or failed (with its last words), or the start deadline passed; then none is left.
  static Result<std::unique_ptr<WorkerProcesses>> start(const EngineStart& start, const LoadedWeights& weights,
                                                        const SharedWorld& world, const ProgressMemory& progress);
  // Gives those that still run a second to end by themselves, then kills them.
  ~WorkerProcesses();

  // Descriptors that become readable when check() has something to tell.
  void append_descriptors(std::vector<pollfd>* items) const;
  // Fails when a worker has ended or said its last words: who, and how. Reaps it. Of several the one that a signal
  // ended: the others mostly ended because of it.
  Result<void> check();
  // The workers end now: their replica is broken.
  void kill();

 private:
  struct Worker {
    std::string name;  // "worker dp=0 pp=0 tp=1"
    ChildProcess process;
    std::unique_ptr<Connection> connection;
    bool ready = false;
    bool killed = false;  // by a signal
  };
  Result<void> spawn(const EngineStart& start, int world_rank);
  // What every worker of the replica gets.
  struct Share {
    const EngineStart& start;
    const LoadedWeights& weights;
    const SharedWorld& world;
    const ProgressMemory& progress;
  };
  static Result<void> shake_hands(Worker* worker, const Frame& frame, const Share& share, int world_rank);
  Result<void> wait_until_ready(const Share& share);
  // Takes what a worker says; everything but its last words goes to `on_frame`.
  using OnFrame = std::function<Result<void>(const Frame& frame)>;
  static Result<void> check_worker(Worker* worker, const OnFrame& on_frame);

  std::vector<Worker> workers_;
};

// The world rank that is rank 0 of the transport of this worker's replica: of all replicas where they step together.
int first_world_rank(const EngineStart& start, int world_rank);
// Where it dies, in a test.
FaultPoint fault_point_of(const EngineStart& start, int world_rank);
// The setup of the worker of this world rank.
WorkerSetup worker_setup(const EngineStart& start, int world_rank, std::shared_ptr<Transport> transport);

}  // namespace chorus

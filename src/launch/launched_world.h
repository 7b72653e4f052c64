// The workers of all replicas as processes that a launcher (torchrun, mpirun, srun) started with the same command line:
// one world, in which rank 0 is the front and holds the fleet.
//
//   rank 0            join, start_fleet, (the fleet's work and end), part
//   every other rank  join, serve, part
//
// The first worker of each replica is an engine (engine_process.h): rank 0's is a thread of its process, the others are
// behind connections (launched_engines.h). The ranks may be on several nodes if they have a cluster key. Whatever goes
// wrong in one rank breaks the world: every rank ends within two seconds, with the reason of the first.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/result.h"
#include "config/engine_config.h"
#include "config/model_config.h"
#include "exec/load_weights.h"
#include "exec/replica_executor.h"
#include "fleet/fleet.h"
#include "launch/launched_engines.h"
#include "launch/launched_resources.h"
#include "parallel/group.h"
#include "parallel/launch/launcher.h"
#include "parallel/launch/rendezvous.h"
#include "parallel/topology.h"

namespace chorus {

class LaunchedWorld {
 public:
  // Waits for all ranks, engine_start_timeout_ms at most. `interrupted` is asked every
  // second at least while a rank waits or loads; true ends it, and the world. Errors: invalid_argument (the parallel
  // sizes do not make this world, a rank was given something else than rank 0, or there are several nodes and no key),
  // deadline_exceeded (the ranks that are missing). `store`: where the ranks meet, if not where the launcher says; of
  // several worlds of one job each needs its own (make_prefix_store), which stays until all have joined.
  static Result<std::unique_ptr<LaunchedWorld>> join(const LauncherEnvironment& environment, const EngineConfig& config,
                                                     const ModelConfig& model, std::function<bool()> interrupted,
                                                     std::shared_ptr<Store> store = nullptr);
  // A rank that goes without having parted breaks the world.
  ~LaunchedWorld();

  int rank() const { return world_.rank(); }
  const Topology& topology() const { return topology_; }

  // Rank 0, once. `model`: that of join() with what only the front end reads, the end-of-sequence ids. The fleet must
  // end before part(). Errors as launch_fleet().
  Result<std::unique_ptr<Fleet>> start_fleet(const ModelConfig& model);
  // The others: computes until rank 0's fleet ends.
  Result<void> serve();
  // Returns when every rank has come here.
  Result<void> part();
  // Breaks the world, with this reason for all.
  void abort(const Error& reason);

 private:
  LaunchedWorld(const EngineConfig& config, const ModelConfig& model, const Topology& topology, Group world)
      : config_(config), model_(model), topology_(topology), world_(std::move(world)) {}

  Result<void> choose_resources();
  Result<void> connect(const std::shared_ptr<Store>& store, const std::shared_ptr<const ClusterKey>& key);
  Result<void> wait_for_rank_0();
  Result<void> check();
  Result<LoadedWeights> load_own_weights();
  WorkerSetup own_setup() const;
  Result<void> serve_as_engine();
  Result<void> serve_as_worker();
  bool is_engine() const { return world_.rank() % config_.parallel.replica_size() == 0; }

  EngineConfig config_;
  ModelConfig model_;
  Topology topology_;
  std::shared_ptr<Transport> transport_;  // null in a world of one
  Group world_;
  std::function<bool()> interrupted_;
  EngineConnections connections_;  // until the fleet and the engine take them
  std::string profile_;
  RankResources resources_;
  std::thread engine_;          // rank 0's
  Result<void> engine_result_;  // of that thread, once it has ended
  std::atomic<bool> engine_ended_ = false;
  bool parted_ = false;
};

}  // namespace chorus

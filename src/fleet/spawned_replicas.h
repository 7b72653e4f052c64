// Replicas that are processes of this machine, which this process starts with its own weights, a world in shared memory
// where they step together, bound to their own cores where that is configured.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "fleet/replica_source.h"
#include "parallel/transport/transport.h"

namespace chorus {

class SpawnedReplicas final : public ReplicaSource {
 public:
  // Of every rank that is of this machine (ParallelConfig::is_local).
  SpawnedReplicas() = default;

  bool brings(int rank) const override;
  ReplicaOrigin origin() const override { return ReplicaOrigin::spawned; }
  void add(int rank) override;
  Result<void> prepare(const FleetSetup& setup, const ModelConfig& model, EngineConfig* config) override;
  void open(SourceHost* host, const EngineConfig& config, const ModelConfig& model,
            const LoadedWeights& weights) override;
  Result<ReplicaLink> begin(Placement replica, std::uint64_t world) override;
  void configure(ReplicaLink* engine) override;

 private:
  SourceHost* host_ = nullptr;
  ParallelConfig parallel_;
  std::string engine_program_;
  int weights_fd_ = -1;
  std::vector<std::vector<int>> cpu_sets_;  // by worker of this machine; empty: not bound
  std::map<int, int> added_;                // to the rank whose cores it has; -1: not bound
  std::optional<SharedWorld> world_;
  std::uint64_t world_number_ = 0;  // of world_
};

}  // namespace chorus

// Replicas that Ray places. To the host they are replicas that nodes bring (joining_replicas.h), also where Ray's nodes
// are this machine alone: Ray starts an actor for each, the actor starts the rank's node, and the node joins. With the
// strategy span that is so for each worker: it is a part of its rank, with its own actor and node.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "launch/joining_replicas.h"
#include "launch/ray_launcher.h"
#include "parallel/launch/launcher.h"

namespace chorus {

// What Ray's users say in the environment, where `config` asks for Ray: RAY_ADDRESS, CHORUS_RAY_DP_PACK_STRATEGY (or
// vLLM's name).
void read_ray_environment(const EnvironmentLookup& lookup, EngineConfig* config);

class RayReplicas final : public ReplicaSource {
 public:
  RayReplicas() : nodes_([this] { return missing(); }) {}

  bool brings(int) const override { return true; }
  ReplicaOrigin origin() const override { return ReplicaOrigin::joins; }
  // Connects to Ray, or starts a cluster, and asks it for the ranks.
  Result<void> prepare(const FleetSetup& setup, const ModelConfig& model, EngineConfig* config) override;
  void open(SourceHost* host, const EngineConfig& config, const ModelConfig& model,
            const LoadedWeights& weights) override;
  Result<void> check_start(Nanoseconds now) override;
  Result<ReplicaLink> begin(Placement replica, std::uint64_t world) override { return nodes_.begin(replica, world); }
  void configure(ReplicaLink* engine) override { nodes_.configure(engine); }
  Result<void> take_contact(Placement replica, const Frame& frame) override {
    return nodes_.take_contact(replica, frame);
  }
  void ended(Placement replica) override { nodes_.ended(replica); }
  void append_descriptors(std::vector<pollfd>* items) const override;
  std::optional<Nanoseconds> next_deadline() const override { return nodes_.next_deadline(); }
  std::vector<SourceEvent> advance(Nanoseconds now) override;
  void shut_down() override { nodes_.shut_down(); }

 private:
  Result<RayCluster> connect(const FleetSetup& setup, const EngineConfig& config);
  Result<void> settle(const RayCluster& cluster, EngineConfig* config);
  Result<void> place(const EngineConfig& config);
  void hear(const RayEvent& event, std::vector<SourceEvent>* events);
  std::string missing() const;
  std::string need() const;
  std::string name_of(const RayEvent& event) const;

  ParallelConfig parallel_;
  int threads_ = 1;
  std::string program_;            // of the ranks' nodes
  UniqueFd key_;                   // where no --cluster-key-file was given
  std::vector<std::string> plan_;  // by rank: the node's address
  std::unique_ptr<RayLauncher> launcher_;
  SourceHost* host_ = nullptr;
  std::vector<std::vector<bool>> placed_;  // by rank and part
  std::string end_;                        // why chorus-ray has ended; empty: it has not
  JoiningReplicas nodes_;                  // goes first: its ranks' nodes have been told to end when Ray's child goes
};

}  // namespace chorus

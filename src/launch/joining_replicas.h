// Replicas that nodes bring (launch/remote_node.h). Such a rank begins when its node joins and ends with its
// connection; to bring it back is the node's business, so it is never started again from here.
//
// Where the workers of a world are on several nodes each of them comes by itself, over its own connection, so that the
// head can bring them together: a replica begins when all of its workers are there, its world is formed when all
// workers of that world have told their contacts, and it ends with the first worker that is gone. What this machine has
// of such workers comes in the same way, from a node in a thread (own_node.h).
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "fleet/replica_source.h"
#include "launch/node_listener.h"
#include "launch/own_node.h"

namespace chorus {

class JoiningReplicas final : public ReplicaSource {
 public:
  // `missing`: for the log and the error, why ranks are not there, as far as somebody knows who starts them; empty: an
  // operator does.
  explicit JoiningReplicas(std::function<std::string()> missing = {}) : missing_because_(std::move(missing)) {}
  ~JoiningReplicas() override;

  // Where nodes join. After prepare().
  const tcp::Address& address() const { return listener_->address(); }

  bool brings(int rank) const override { return !parallel_.is_local(rank); }
  ReplicaOrigin origin() const override { return ReplicaOrigin::joins; }
  bool starts(int rank) const override;
  Result<void> prepare(const FleetSetup& setup, const ModelConfig& model, EngineConfig* config) override;
  void open(SourceHost* host, const EngineConfig& config, const ModelConfig& model,
            const LoadedWeights& weights) override;
  Result<void> check_start(Nanoseconds now) override;
  Result<ReplicaLink> begin(Placement replica, std::uint64_t world) override;
  void configure(ReplicaLink* engine) override;
  Result<void> take_contact(Placement replica, const Frame& frame) override;
  void ended(Placement replica) override;
  void append_descriptors(std::vector<pollfd>* items) const override;
  std::optional<Nanoseconds> next_deadline() const override;
  std::vector<SourceEvent> advance(Nanoseconds now) override;
  void shut_down() override;

 private:
  std::unique_ptr<Connection>& joined(int rank, int worker) { return joined_[slot(rank, worker)]; }
  std::size_t slot(int rank, int worker) const {
    return static_cast<std::size_t>(rank) * static_cast<std::size_t>(workers_) + static_cast<std::size_t>(worker);
  }
  std::vector<ReplicaLink>& followers(int rank) { return followers_[static_cast<std::size_t>(rank)]; }
  WelcomeMessage welcome_of(Placement replica, std::uint64_t world) const;
  bool all_joined(int rank) const;
  std::string objection(int rank, int worker) const;
  std::string missing_ranks() const;
  std::string missing_workers() const;
  void start_own_node(const FleetSetup& setup, const ModelConfig& model, EngineConfig config);

  void take_newcomers(Nanoseconds now, std::vector<SourceEvent>* events);
  void watch_joined(std::vector<SourceEvent>* events);
  void read_followers(int rank, std::vector<SourceEvent>* events);
  Result<void> handle(Placement replica, int worker, const Frame& frame, std::vector<SourceEvent>* events);
  Result<void> note_contact(int rank, int worker, const Frame& frame);
  void form_world(int rank);

  std::function<std::string()> missing_because_;
  ParallelConfig parallel_;
  int workers_ = 1;       // of a replica that join: 1, or all of them
  int own_replicas_ = 0;  // that this machine has a part in, where workers join singly
  Nanoseconds start_timeout_ = 0;
  SourceHost* host_ = nullptr;
  std::unique_ptr<NodeListener> listener_;
  std::vector<std::unique_ptr<Connection>> joined_;  // by rank and worker: until it begins
  std::vector<std::vector<ReplicaLink>> followers_;  // by rank: its workers from 1 on, where they join singly
  std::vector<std::string> contacts_;                // by world rank, of the present incarnations; empty: not told yet
  // What nodes call world 0: those of another head, which had the same nodes before, are others.
  std::uint64_t first_world_ = std::random_device{}() * std::uint64_t{0x100000000};
  std::unique_ptr<OwnNode> own_node_;
  Nanoseconds missing_deadline_ = 0;  // of the nodes that have not joined since the start
  Nanoseconds missing_log_at_ = 0;
};

}  // namespace chorus

// One process of a node without a front end (an engine, or where workers join singly any worker of a replica), its
// connection to the head, and what goes between them. Never waits: the node's loop does (launch/remote_node.cc).
#pragma once

#include <poll.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "cluster/supervisor.h"
#include "config/engine_config.h"
#include "config/model_config.h"
#include "exec/load_weights.h"
#include "launch/node_worlds.h"
#include "net/connector.h"
#include "protocol/messages.h"
#include "worker/child_process.h"

namespace chorus {

// What the workers of a node have in common. Outlives them.
struct RemoteNodeContext {
  EngineConfig config;
  ModelConfig model;
  LoadedWeights weights;
  Fingerprint fingerprint;
  std::string node_name;
  std::string engine_program;  // as FleetSetup's
  std::vector<tcp::Address> head;
  std::shared_ptr<const ClusterKey> key;
  int threads = 1;
  std::uint64_t kv_cache_bytes = 0;
  std::vector<std::vector<int>> cpu_sets;  // of this node's workers
  NodeWorlds worlds{ParallelConfig{}};
};

class RemoteWorker {
 public:
  // `worker` of the replica `rank`; 0 is its engine, which has the others with it unless workers join singly.
  RemoteWorker(int rank, int worker, RemoteNodeContext* node, Nanoseconds now);

  // Goes on with everything that can go on.
  void advance(Nanoseconds now);
  void append_descriptors(std::vector<pollfd>* items) const;
  std::optional<Nanoseconds> next_deadline() const;

  // The head has told it to end, and it has.
  bool done() const { return state_ == State::done; }
  // It will not be tried again.
  const std::optional<Error>& given_up() const { return given_up_; }
  bool over() const { return done() || given_up_.has_value(); }
  // The head has ended: an engine that is not connected need not try again.
  bool told_to_end() const { return told_to_end_; }
  void end_unless_connected();

 private:
  enum class State : unsigned char { waiting, connecting, joining, running, done };

  void connect(Nanoseconds now);
  void join(Nanoseconds now);
  void start_process(const Frame& welcome, Nanoseconds now);
  void relay(Nanoseconds now);
  Result<void> relay_to_head(Nanoseconds now);
  Result<void> relay_to_process();
  Result<void> configure(const Frame& frame);
  Result<void> complete(EngineStart* start) const;
  void process_ended(const ExitStatus& status, Nanoseconds now);
  Placement life() const { return {0, supervisor_.epoch(0)}; }
  void lose_head(const Error& error, Nanoseconds now);
  void try_again(Nanoseconds after, Nanoseconds now);
  void give_up(Error error);
  void end_incarnation();

  int rank_;
  int worker_;
  std::string name_;  // "rank 1", "rank 1 worker 0"
  RemoteNodeContext* node_;
  State state_ = State::waiting;
  Nanoseconds deadline_ = 0;  // of the state, where it has one
  Nanoseconds head_seen_at_;  // when the head was last connected to
  std::optional<Connector> connector_;
  std::unique_ptr<Connection> head_;
  std::unique_ptr<Connection> inner_;  // to the process
  ChildProcess process_;
  std::uint32_t epoch_ = 0;
  std::uint64_t world_ = 0;  // WelcomeMessage::world
  bool told_to_end_ = false;
  bool said_last_words_ = false;  // this incarnation
  // Of the process: when it is started again, and when no more. The time that a start or a step may take is the head's
  // to judge.
  Supervisor supervisor_;
  std::optional<Error> given_up_;
};

}  // namespace chorus

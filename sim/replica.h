// One incarnation of a simulated engine process: the production scheduler, the toy model, and what has arrived for it
// from its clients, the front ends. It lives in the world's clock: the world says when it receives, steps, stops and
// dies.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "cluster/dispatcher.h"
#include "cluster/load_view.h"
#include "cluster/placement.h"
#include "sched/scheduler.h"
#include "testing/toy_pipeline.h"

namespace chorus::sim {

// What a replica tells one front end at the end of a step.
struct Frame {
  Placement from;
  std::vector<TokenEvent> events;
  LoadReport load;
};

class Replica {
 public:
  enum class State : std::uint8_t {
    loading,  // not ready yet
    running,
    stopped,  // SIGSTOP: what arrives waits, nothing is said, until it wakes
    dead,
  };
  // One way of a connection, in order. `parent` has one as the front ends have.
  static constexpr ClientId parent = ~ClientId{0};
  struct Link {
    Nanoseconds in_free = 0;   // when the last message to the replica arrives
    Nanoseconds out_free = 0;  // when the last frame from it arrives
    std::uint64_t sent = 0, arrived = 0;
    std::uint64_t surviving = UINT64_MAX;  // frames after it were lost with the process
    std::size_t unread = 0;                // messages on their way to it, or arrived and not taken in
    LoadReport told;                       // last
    std::uint64_t received = 0;
  };

  Replica(Placement placement, std::uint64_t world, const SchedulerConfig& config);

  Placement placement() const { return placement_; }
  std::uint64_t world() const { return world_; }  // of those that step together; 0: none
  void receive(ClientId client, ReplicaMessage message);
  // Its connection broke: its requests end, and nobody else's.
  void client_left(ClientId client);
  // A step would do something.
  bool has_work() const;
  // Takes in what has arrived, gives the model as many plans as it takes, and completes the oldest.
  std::vector<TokenEvent> step();
  // What a step takes in first, where none is to follow.
  void take_in();
  LoadReport load(ClientId client) const;

  // Requests that were taken in since the last call.
  std::vector<RequestId> take_fresh() { return std::exchange(fresh_, {}); }
  // Requests that it has, arrived or being computed.
  std::set<RequestId> requests() const;
  // Nothing in it, every block free (CHECKs the scheduler's tables).
  bool is_clean() const;
  SchedulerStats stats() const { return scheduler_->stats(); }
  std::uint64_t most_in_flight() const { return most_in_flight_; }  // plans at a time, so far

  // The world's notes.
  State state = State::loading;
  bool unreachable = false;    // a kill does not reach it
  bool stepping = false;       // a step is being computed
  std::uint64_t wave = 0;      // that it is in
  std::function<void()> held;  // what it would have said when it was stopped
  std::map<ClientId, Link> links;

 private:
  Placement placement_;
  std::uint64_t world_;
  std::int32_t kv_blocks_;
  std::int32_t plans_in_flight_max_;
  std::unique_ptr<Scheduler> scheduler_;
  ToyPipeline pipeline_;
  StepResult result_;
  std::vector<std::pair<ClientId, ReplicaMessage>> inbox_;
  std::map<ClientId, std::set<RequestId>> requests_;  // that the scheduler has, or had a moment ago
  std::vector<RequestId> fresh_;
  std::uint64_t steps_ = 0;
  std::uint64_t most_in_flight_ = 0;
};

ToyModel::Config toy_config(const SchedulerConfig& config);

}  // namespace chorus::sim

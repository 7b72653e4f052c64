// The parent's side of the fleet: carries out what the Coordinator decides. It begins and ends incarnations with the
// sources' help (replica_source.h), answers what engines ask while they start, watches their processes, connections and
// progress, and tells the front end what becomes of them. It touches no request.
//
// In six files: host.cc (start, end and the loop), host_lifecycle.cc (incarnations that begin and end),
// host_deaths.cc (how they are noticed, and what is said of them), host_messages.cc (what engines say), host_clients.cc
// (front ends in other processes), host_operator.cc (what an operator asks for).
//
// Front ends: one in this process over the engines' control connections, or any number in other processes, each with
// a socket to each engine (client_link.h).
#pragma once

#include <poll.h>

#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "cluster/coordinator.h"
#include "fleet/client_link.h"
#include "fleet/fleet.h"
#include "fleet/fleet_client.h"
#include "fleet/fleet_setup.h"
#include "fleet/poll_set.h"
#include "fleet/replica_link.h"
#include "fleet/replica_source.h"

namespace chorus {

class FleetHost final : private SourceHost {
 public:
  // `client`: the front end of this process, which outlives this; nullptr: there is none.
  FleetHost(const EngineConfig& config, const ModelConfig& model, const SupervisorLimits& limits, FleetClient* client);
  // Ends every engine: SHUTDOWN, then SIGKILL after a bound.
  ~FleetHost();

  // Returns when each rank was READY once; errors as launch_fleet().
  Result<void> start(FleetSetup setup);
  // Logs, for a person who waits for a server, what was loaded, and, as vLLM does, for how many requests of the
  // greatest length there is room at a time.
  void tell_what_is_loaded() const;
  // One pass of the loop: waits at most timeout_ms, takes what came, looks at the clock.
  void turn(int timeout_ms);
  // What a caller that waits in another event loop waits for before the next turn(0).
  FleetWait wait();
  // Carries out what was decided, here and by the client, until nobody wants anything more; then sends.
  void act();

  // A front end in another process, which has the other end. Its connection's end is the front end's end. `serves`: the
  // replicas that it sends requests to.
  ClientId add_client(std::unique_ptr<Connection> connection, RankRange serves = {});
  void remove_client(ClientId client);
  bool has_client(ClientId client) const;

  // An operator's commands, carried out as the loop goes on. Errors: no such rank, or one that was removed; replicas
  // that step together, where the number of them would change.
  //
  // One more replica, which gets requests once it is ready; its rank. Errors: replicas that others start; no memory for
  // its KV cache.
  Result<int> add();
  // It gets nothing new, and with `move` what it has goes on elsewhere, no token lost; until resume().
  Result<void> drain(int rank, bool move);
  Result<void> resume(int rank);
  // Drained, then ended for good: its rank is never used again. Errors: it is the last one.
  Result<void> remove(int rank, bool move);
  // Ended at once, what it has going on elsewhere, and started again; also one that was given up.
  Result<void> restart(int rank);
  // All of them drain, also those that come meanwhile: requests wait, with `move` those that run too.
  void pause(bool move);
  void resume_all();
  bool is_paused() const { return coordinator_.is_paused(); }

  bool is_over() const { return coordinator_.is_over(monotonic_now()); }
  Error all_dead() const;
  std::vector<ReplicaStatus> replicas() const;
  const FleetTimes& times() const { return times_; }
  const PrefixKey& prefix_key() const { return prefix_key_; }  // after start()

 private:
  // What is known of a rank over its incarnations.
  struct Rank {
    ReplicaSource* source = nullptr;
    std::optional<ReplicaLink> link;  // the present incarnation, until its process is reaped
    bool was_ready = false;           // some incarnation was READY
    bool removed = false;             // an operator wants it to end
    bool restarting = false;          // or to start anew, and its present incarnation has not ended
    EngineLoad load;                  // last reported
    std::uint32_t deaths = 0;         // of its incarnations
    struct Death {
      ErrorCode code = ErrorCode::unavailable;
      std::string words;  // "was killed by SIGKILL"; empty: has not died
    } last_death;
  };
  using Death = Rank::Death;

  // For the sources.
  int ranks() const override { return static_cast<int>(ranks_.size()); }
  int first_rank() const { return config_.parallel.fleet_begin(); }
  ReplicaState state(int rank) const override { return coordinator_.state(rank); }
  bool was_ready(int rank) const override { return at(rank).was_ready; }
  ReplicaLink* link(int rank) override { return at(rank).link ? &*at(rank).link : nullptr; }
  EngineStart engine_start(Placement replica) const override;

  Rank& at(int rank) { return ranks_[static_cast<std::size_t>(rank)]; }
  const Rank& at(int rank) const { return ranks_[static_cast<std::size_t>(rank)]; }
  bool is_ready(int rank) const { return rank < coordinator_.replicas() && coordinator_.is_ready(rank); }
  bool any_ready() const;

  Result<void> prepare(FleetSetup* setup);
  void add_replicas();
  Result<void> check_rank(int rank) const;
  Result<void> check_memory() const;
  ReplicaCondition condition_of(int rank) const;
  Result<void> wait_for_all(const std::function<bool()>& interrupted);

  // Incarnations.
  bool carry_out();
  void act(const CoordinatorAction& action);
  void begin(const CoordinatorAction& action);
  void bury(const ReplicaNews& news);
  void kill(Placement replica);
  void log_end(const CoordinatorAction& action) const;
  void hear_sources();
  void hear(const SourceEvent& event);

  // Deaths.
  void check_exit(int rank);
  void check_closed();
  void fault(ReplicaLink& link, const std::string& reason);
  void check_sending();
  void watch_progress();
  ProgressSample progress_of(int rank) const;
  bool works(int rank) const;
  Death death_of(const ReplicaLink& link, int because_of) const;
  Error start_error() const;
  Error with_deaths(Error error, bool before_ready_only) const;
  void log_waiting_for_nodes();

  // Front ends in other processes.
  void hear_clients();
  Result<void> hear(ClientLink& client);
  std::uint32_t requests_on(int rank) const;

  // Messages.
  void read_from(int rank);
  Result<void> handle(ReplicaLink& link, const Frame& frame);
  Result<void> on_hello(ReplicaLink& link, const Frame& frame);
  Result<void> on_ready(ReplicaLink& link, const Frame& frame);
  Result<void> on_fatal(ReplicaLink& link, const Frame& frame);
  Result<void> on_load(ReplicaLink& link, const Frame& frame);
  Result<void> on_wave_ended(const ReplicaLink& link, const Frame& frame);
  void send_messages();

  int append_descriptors(std::vector<pollfd>* items, std::vector<int>* polled, int timeout_ms);

  EngineConfig config_;
  ModelConfig model_;
  SupervisorLimits limits_;
  FleetClient* client_;
  std::vector<std::unique_ptr<ClientLink>> clients_;  // the others
  ClientId next_client_ = 1;
  Coordinator coordinator_;
  LoadedWeights weights_;         // the sources hand out its descriptor
  ReplicaSources sources_;        // none goes before the fleet's end
  std::vector<Rank> ranks_;       // those before first_rank() are other servers', and have nothing
  int starts_left_;               // ranks that never were READY
  bool start_failed_ = false;     // one of them died
  bool waits_for_nodes_ = false;  // nobody is left, and that was said
  int threads_ = 1;
  std::uint64_t kv_cache_bytes_ = 0;
  FleetTimes times_;
  PrefixKey prefix_key_;
  PollSet waited_for_;
};

}  // namespace chorus

// The Coordinator decides for the parent: which replicas there are, who of them lives in which epoch, which start, step
// and end together, and when one is drained or removed. It touches no request. It gives the host actions (spawn, kill,
// begin a wave) and every front end the same news (replica_news.h).
//
// Membership: ids count 0, 1, 2, ... (or from the first one of a server behind an outer load balancer, which has some
// of the replicas alone) and are never used again. A replica is spawned by the host, or was there already (connected by
// a launcher), or joins each time a node brings it.
//
// Replicas that step together (expert parallel) are one world: they all start in it, and its first death ends it for
// all of them; each new start is in the next world. When one of them cannot come back none can go on: all are given up.
// They step in waves: one begins on all of them while an engine reports work, and ends on all of them after the same
// step.
//
// A replica is drained in steps: the front ends get `draining`, each of them answers `drained` when nothing of its
// requests is there; then, if it is to be removed, it is ended. Who does not answer in drain_timeout is not waited for:
// its ledger has what it needs to go on elsewhere. Each draining has a number, which the answer names: one to an
// earlier draining says nothing of the present one.
//
// Paused, all replicas drain, also those that come. Restarted, a replica ends at once, its requests having been moved
// away, and starts again; of a world all of them.
//
// A front end that suspects a request of killing replicas is lent one (in a world all of them are drained for it): no
// other request is there until it returns it. One front end at a time, in the order in which they asked.
//
// Pure: inputs with the time, outputs taken in order, news before actions.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "cluster/planted_fault.h"
#include "cluster/replica_news.h"
#include "cluster/supervisor.h"

namespace chorus {

enum class ReplicaOrigin : std::uint8_t {
  spawned,    // the host starts its process, again after each death
  connected,  // it is there, and ends with its first death
  joins,      // it starts when joined() says so, each time
};

struct CoordinatorConfig {
  SupervisorLimits supervisor;
  bool step_together = false;
  int first_replica = 0;                         // those before it are other servers'; 0 where they step together
  Nanoseconds drain_timeout = 30'000'000'000;    // a removal, or a loan, waits so long for what runs there
  Nanoseconds rejoin_timeout = 600'000'000'000;  // with nobody left: how long a node may take to bring one back
  PlantedFault planted = PlantedFault::none;
};

struct CoordinatorAction {
  enum class Kind : std::uint8_t {
    spawn,       // start this epoch (of a replica that was there or has joined: greet it)
    kill,        // then tell exited()
    give_up,     // no further start of it by this side; a removed one too
    begin_wave,  // tell it that `number` begins
  };
  Kind kind = Kind::spawn;
  Placement replica;
  std::uint64_t number = 0;  // begin_wave: of the wave; spawn: of its world, 0 where it has none
  int because_of = -1;       // give_up: because this replica, which it steps together with, is
  bool operator==(const CoordinatorAction&) const = default;
};

class Coordinator {
 public:
  explicit Coordinator(const CoordinatorConfig& config);

  // Membership. A world has the size with which it started: later ones are refused there, and so is a removal.
  Result<int> add_replica(ReplicaOrigin origin, Nanoseconds now);
  void drain(int replica, bool move, Nanoseconds now);
  void resume(int replica, Nanoseconds now);  // ends its draining
  Result<void> remove(int replica, bool move, Nanoseconds now);
  Result<void> restart(int replica, Nanoseconds now);
  void pause(bool move, Nanoseconds now);
  void resume_all(Nanoseconds now);  // ends the pause
  // Of one that joins: all parts of it are there (it starts, with all of its world) or one has gone before it started.
  void joined(int replica, Nanoseconds now);
  void left(int replica);
  // What brings it has said that it will not do so again.
  void will_not_return(int replica);

  // Front ends.
  // `serves`: it sends requests to these replicas alone, and hears of no other. What it must know to begin with.
  std::vector<ReplicaNews> client_joined(ClientId client, RankRange serves = {});
  void client_left(ClientId client, Nanoseconds now);
  void on_note(ClientId client, const ClientNote& note, Nanoseconds now);

  // What was seen of replicas. Of an epoch that is not the present one it is ignored (a late message).
  void ready(Placement replica, Nanoseconds now);
  void heartbeat(Placement replica, Nanoseconds now);
  void exited(Placement replica, ExitStatus status, Nanoseconds now);
  void fault(Placement replica, Nanoseconds now);
  void report(Placement replica, bool has_work);
  // False: that wave was never begun; the replica is faulty.
  bool wave_ended(Placement replica, std::uint64_t wave);
  void tick(Nanoseconds now);

  std::vector<ReplicaNews> take_news();
  std::vector<CoordinatorAction> take_actions();
  std::optional<Nanoseconds> next_deadline() const;

  int replicas() const { return supervisor_.replicas(); }  // ids ever given
  ReplicaState state(int replica) const { return supervisor_.state(replica); }
  Epoch epoch(int replica) const { return supervisor_.epoch(replica); }
  std::uint32_t restarts(int replica) const { return supervisor_.restarts(replica); }
  bool is_ready(int replica) const { return state(replica) == ReplicaState::ready; }
  bool is_draining(int replica) const;  // for an operator
  bool is_drained(int replica) const;   // and every front end has said so, or was waited for long enough
  bool is_paused() const { return paused_; }
  // No replica works, and none will by itself.
  bool is_over(Nanoseconds now) const;
  // All are given up, and what is waited for is a node.
  bool waits_for_nodes() const { return nobody_since_.has_value(); }

 private:
  struct Replica {
    ReplicaOrigin origin = ReplicaOrigin::spawned;
    std::uint64_t world = 0;  // of the present epoch; 0: none
    std::uint64_t wave = 0;   // the last that it was told to begin and has not ended; 0: none
    bool has_work = false;    // reported since its last wave
    int because_of = -1;      // of its death: the one that ended its world; -1: itself
    bool was_ready = false;   // some epoch of it
    bool joined = false;      // and not started
    bool returns = true;      // of one that joins
    bool draining = false;    // for an operator or its removal
    bool move = false;        // draining: its requests go elsewhere
    bool removing = false;
    std::uint32_t drainings = 0;  // numbers given
    std::optional<Nanoseconds> drain_deadline;
    std::set<ClientId> awaited;  // front ends that have not said `drained`
  };
  struct Loan {
    ClientId client = 0;
    std::vector<int> replicas;
    bool granted = false;
  };
  Replica& at(int replica) { return replicas_.at(static_cast<std::size_t>(replica)); }
  bool present(Placement replica) const { return replica.epoch != 0 && epoch(replica.rank) == replica.epoch; }
  bool works(Placement replica) const { return present(replica) && is_ready(replica.rank); }
  Placement placement(int replica) const { return {replica, epoch(replica)}; }

  void follow_supervisor(Nanoseconds now);
  void on_death(int replica, Nanoseconds now);
  void end_world(int replica, Nanoseconds now);
  void on_end(int replica, Nanoseconds now);
  bool may_return(int replica) const;
  bool lent(int replica) const;
  bool answers_present_draining(const ClientNote& note) const;
  void reopen(int replica);
  void tell_draining(int replica, Nanoseconds now);
  void on_drained(int replica, Nanoseconds now);
  void begin_waves();
  std::optional<int> replica_for(ClientId borrower) const;
  void lend(Nanoseconds now);
  void hold_loan();
  void end_loan();
  void tell(int replica, ReplicaNews::State state);
  ReplicaNews draining_news(int replica) const;

  CoordinatorConfig config_;
  Supervisor supervisor_;
  std::vector<Replica> replicas_;
  std::map<ClientId, RankRange> clients_;
  std::uint64_t world_ = 1;
  std::uint64_t wave_ = 0;  // the last that was begun in this world
  std::deque<ClientId> borrowers_;
  std::optional<Loan> loan_;
  std::optional<Nanoseconds> nobody_since_;
  bool paused_ = false, pause_moves_ = false;
  std::vector<ReplicaNews> news_;
  std::vector<CoordinatorAction> actions_;
};

}  // namespace chorus

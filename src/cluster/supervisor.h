// The life of every replica's process: start it, hold it to its deadlines, declare it dead, start it again with
// back-off, give it up. Pure: inputs are what was seen, with the time; outputs are what is to be done. fleet/ does it
// for real, sim/ in simulation.
//
//   starting ──ready──> ready          each start has a new epoch
//      │ exit, deadline   │ exit, silence, fault
//      ├──────────────────┘
//      v
//   killing ──exit (or the kill deadline)──> backing_off ──> starting
//                                                └─ restart budget spent, or not worth a retry ──> given_up
//
// A replica that is removed ends as `removed` instead: its id is never used again. One that an operator restarts goes
// from killing to starting at once, with a new budget.
//
// An epoch dies exactly once: `died` is given the moment it is known (exit, missed deadline, fault), before its process
// is certainly gone; whatever that process says later is of an old epoch.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "base/clock.h"
#include "base/exit_status.h"
#include "cluster/placement.h"

namespace chorus {

struct SupervisorLimits {
  Nanoseconds start_timeout = 600'000'000'000;     // spawn to ready
  Nanoseconds heartbeat_timeout = 60'000'000'000;  // silence of a ready replica
  Nanoseconds kill_timeout = 5'000'000'000;  // kill to exit; then the process is left behind (a node out of reach)
  Nanoseconds backoff_first = 100'000'000;   // death to next spawn; doubles with each death in a row
  Nanoseconds backoff_max = 10'000'000'000;
  Nanoseconds stable_after = 60'000'000'000;  // ready for so long: the back-off and the budget begin anew
  std::uint32_t restarts_max = 5;             // in a row
};

enum class ReplicaState : std::uint8_t { stopped, starting, ready, killing, backing_off, given_up, removed };
const char* name_of(ReplicaState state);

struct SupervisorAction {
  enum class Kind : std::uint8_t {
    spawn,    // start the process of this epoch
    kill,     // SIGKILL; then tell exited()
    died,     // this epoch counts as dead from now on
    give_up,  // no further start of this replica
  };
  Kind kind = Kind::spawn;
  Placement replica;
  bool operator==(const SupervisorAction&) const = default;
};

class Supervisor {
 public:
  explicit Supervisor(const SupervisorLimits& limits) : limits_(limits) {}

  // One more replica, stopped; returns its id: 0, 1, 2, ... Where it is not `restartable` nobody here could start it
  // again once it died (its process is another's): its next death is its last.
  int add(bool restartable);
  // The next id is not one of ours: as if it had been removed.
  void add_absent() { replicas_.emplace_back().state = ReplicaState::removed; }

  // What was seen. Of an epoch that is not the present one, or a state that it does not fit, it is ignored (a late
  // message).
  void start(int rank, Nanoseconds now);                               // begins a stopped or given up replica
  void ready(Placement replica, Nanoseconds now);                      // it answers
  void heartbeat(Placement replica, Nanoseconds now);                  // it made progress, or idles and says so
  void exited(Placement replica, ExitStatus status, Nanoseconds now);  // its process has ended
  void fault(Placement replica, Nanoseconds now);  // it broke the protocol, its connection broke, or an operator asks
  void give_up(int rank, Nanoseconds now);         // it shall not be started again; if it runs it is ended
  void remove(int rank, Nanoseconds now);          // the same, for good
  // Its process ends, if it runs, and it starts anew: also one that was given up, or backs off.
  void restart(int rank, Nanoseconds now);
  void tick(Nanoseconds now);  // time passed: call at next_deadline() or earlier

  // What is to be done, in order.
  std::vector<SupervisorAction> take_actions();
  // When tick() must be called next; nullopt: nothing waits for time.
  std::optional<Nanoseconds> next_deadline() const;

  int replicas() const { return static_cast<int>(replicas_.size()); }  // ids ever given
  ReplicaState state(int rank) const;
  Epoch epoch(int rank) const;             // of the last start; 0: none
  std::uint32_t restarts(int rank) const;  // in a row
  // No replica works or will work again by itself.
  bool all_given_up() const;

 private:
  struct Replica {
    ReplicaState state = ReplicaState::stopped;
    Epoch epoch = 0;
    Nanoseconds deadline = 0;  // of the state, where it has one
    Nanoseconds ready_since = 0;
    std::uint32_t restarts = 0;
    bool retry = true;         // of the life that is ending
    bool restartable = true;   // of every life
    bool leaving = false;      // its end is its removal
    bool starts_anew = false;  // its end is a restart that was asked for
  };
  Replica* present(Placement replica);
  void spawn(int rank, Nanoseconds now);
  void declare_dead(int rank, Nanoseconds now);
  void gone(int rank, Nanoseconds now);
  void end(int rank);
  bool restart_allowed(int rank) const;
  Nanoseconds backoff(std::uint32_t restarts) const;
  void act(SupervisorAction::Kind kind, int rank);

  SupervisorLimits limits_;
  std::vector<Replica> replicas_;
  std::vector<SupervisorAction> actions_;
};

}  // namespace chorus

#include "cluster/supervisor.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace chorus {
namespace {

constexpr int exit_wrong_usage = 2;

bool has_deadline(ReplicaState state) {
  return state == ReplicaState::starting || state == ReplicaState::ready || state == ReplicaState::killing ||
         state == ReplicaState::backing_off;
}

}  // namespace

const char* name_of(ReplicaState state) {
  switch (state) {
    case ReplicaState::stopped:
      return "stopped";
    case ReplicaState::starting:
      return "starting";
    case ReplicaState::ready:
      return "ready";
    case ReplicaState::killing:
      return "killing";
    case ReplicaState::backing_off:
      return "backing_off";
    case ReplicaState::given_up:
      return "given_up";
    case ReplicaState::removed:
      return "removed";
  }
  return "unknown";
}

int Supervisor::add(bool restartable) {
  replicas_.emplace_back().restartable = restartable;
  return replicas() - 1;
}

// The replica if this is its present incarnation, else nullptr.
Supervisor::Replica* Supervisor::present(Placement replica) {
  Replica& known = replicas_.at(static_cast<std::size_t>(replica.rank));
  return known.epoch == replica.epoch && replica.epoch != 0 ? &known : nullptr;
}

void Supervisor::act(SupervisorAction::Kind kind, int rank) {
  actions_.push_back({kind, {rank, replicas_[static_cast<std::size_t>(rank)].epoch}});
}

void Supervisor::start(int rank, Nanoseconds now) {
  Replica& replica = replicas_.at(static_cast<std::size_t>(rank));
  if (replica.state != ReplicaState::stopped && replica.state != ReplicaState::given_up) return;
  replica.restarts = 0;
  spawn(rank, now);
}

void Supervisor::spawn(int rank, Nanoseconds now) {
  Replica& replica = replicas_[static_cast<std::size_t>(rank)];
  ++replica.epoch;
  replica.state = ReplicaState::starting;
  replica.deadline = now + limits_.start_timeout;
  replica.retry = true;
  act(SupervisorAction::Kind::spawn, rank);
}

void Supervisor::ready(Placement placement, Nanoseconds now) {
  Replica* const replica = present(placement);
  if (replica == nullptr || replica->state != ReplicaState::starting) return;
  replica->state = ReplicaState::ready;
  replica->ready_since = now;
  replica->deadline = now + limits_.heartbeat_timeout;
}

void Supervisor::heartbeat(Placement placement, Nanoseconds now) {
  Replica* const replica = present(placement);
  if (replica == nullptr || replica->state != ReplicaState::ready) return;
  replica->deadline = now + limits_.heartbeat_timeout;
}

void Supervisor::fault(Placement placement, Nanoseconds now) {
  Replica* const replica = present(placement);
  if (replica == nullptr) return;
  if (replica->state != ReplicaState::starting && replica->state != ReplicaState::ready) return;
  declare_dead(placement.rank, now);
  act(SupervisorAction::Kind::kill, placement.rank);
  replica->state = ReplicaState::killing;
  replica->deadline = now + limits_.kill_timeout;
}

void Supervisor::exited(Placement placement, ExitStatus status, Nanoseconds now) {
  Replica* const replica = present(placement);
  if (replica == nullptr) return;
  const bool starting = replica->state == ReplicaState::starting;
  if (starting && status.signal == 0 && status.code == exit_wrong_usage) replica->retry = false;
  if (starting || replica->state == ReplicaState::ready) {
    declare_dead(placement.rank, now);
  } else if (replica->state != ReplicaState::killing) {
    return;
  }
  gone(placement.rank, now);
}

void Supervisor::give_up(int rank, Nanoseconds now) {
  Replica& replica = replicas_.at(static_cast<std::size_t>(rank));
  replica.retry = false;
  fault({rank, replica.epoch}, now);
  if (replica.state == ReplicaState::stopped || replica.state == ReplicaState::backing_off) end(rank);
}

void Supervisor::remove(int rank, Nanoseconds now) {
  Replica& replica = replicas_.at(static_cast<std::size_t>(rank));
  replica.leaving = true;
  give_up(rank, now);
  if (replica.state == ReplicaState::given_up) end(rank);
}

void Supervisor::restart(int rank, Nanoseconds now) {
  Replica& replica = replicas_.at(static_cast<std::size_t>(rank));
  switch (replica.state) {
    case ReplicaState::stopped:
    case ReplicaState::given_up:
      return start(rank, now);
    case ReplicaState::backing_off:
      replica.restarts = 0;
      return spawn(rank, now);
    case ReplicaState::starting:
    case ReplicaState::ready:
      replica.starts_anew = true;
      return fault({rank, replica.epoch}, now);
    case ReplicaState::killing:
      replica.starts_anew = true;
      return;
    case ReplicaState::removed:
      return;
  }
}

// Tells that the epoch is dead, once, and forgets old deaths if it had been well for long.
void Supervisor::declare_dead(int rank, Nanoseconds now) {
  Replica& replica = replicas_[static_cast<std::size_t>(rank)];
  if (replica.state == ReplicaState::ready && now - replica.ready_since >= limits_.stable_after) replica.restarts = 0;
  act(SupervisorAction::Kind::died, rank);
}

bool Supervisor::restart_allowed(int rank) const {
  const Replica& replica = replicas_[static_cast<std::size_t>(rank)];
  return replica.retry && replica.restartable && replica.restarts < limits_.restarts_max;
}

Nanoseconds Supervisor::backoff(std::uint32_t restarts) const {
  Nanoseconds wait = limits_.backoff_first;
  for (std::uint32_t i = 0; i < restarts && wait < limits_.backoff_max; ++i) wait *= 2;
  return std::min(wait, limits_.backoff_max);
}

// The process is gone, or given up waiting for: back off and start again, or not.
void Supervisor::gone(int rank, Nanoseconds now) {
  Replica& replica = replicas_[static_cast<std::size_t>(rank)];
  if (std::exchange(replica.starts_anew, false) && replica.retry && replica.restartable) {
    replica.restarts = 0;
    return spawn(rank, now);
  }
  if (!restart_allowed(rank)) return end(rank);
  replica.state = ReplicaState::backing_off;
  replica.deadline = now + backoff(replica.restarts);
  ++replica.restarts;
}

void Supervisor::end(int rank) {
  Replica& replica = replicas_[static_cast<std::size_t>(rank)];
  replica.state = replica.leaving ? ReplicaState::removed : ReplicaState::given_up;
  act(SupervisorAction::Kind::give_up, rank);
}

void Supervisor::tick(Nanoseconds now) {
  for (int rank = 0; rank < replicas(); ++rank) {
    const Replica& replica = replicas_[static_cast<std::size_t>(rank)];
    if (!has_deadline(replica.state) || now < replica.deadline) continue;
    switch (replica.state) {
      case ReplicaState::starting:
      case ReplicaState::ready:
        fault({rank, replica.epoch}, now);
        break;
      case ReplicaState::killing:
        gone(rank, now);
        break;
      default:
        spawn(rank, now);
        break;
    }
  }
}

std::vector<SupervisorAction> Supervisor::take_actions() {
  return std::exchange(actions_, {});
}

std::optional<Nanoseconds> Supervisor::next_deadline() const {
  std::optional<Nanoseconds> next;
  for (const Replica& replica : replicas_) {
    if (has_deadline(replica.state) && (!next || replica.deadline < *next)) next = replica.deadline;
  }
  return next;
}

ReplicaState Supervisor::state(int rank) const {
  return replicas_.at(static_cast<std::size_t>(rank)).state;
}

Epoch Supervisor::epoch(int rank) const {
  return replicas_.at(static_cast<std::size_t>(rank)).epoch;
}

std::uint32_t Supervisor::restarts(int rank) const {
  return replicas_.at(static_cast<std::size_t>(rank)).restarts;
}

bool Supervisor::all_given_up() const {
  return std::all_of(replicas_.begin(), replicas_.end(), [](const Replica& replica) {
    return replica.state == ReplicaState::given_up || replica.state == ReplicaState::removed;
  });
}

}  // namespace chorus

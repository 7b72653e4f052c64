// What an operator asks for.
#include <algorithm>

#include "base/log.h"
#include "config/node.h"
#include "fleet/host.h"

namespace chorus {

Result<void> FleetHost::check_rank(int rank) const {
  if (rank < first_rank() || rank >= ranks()) return no_such_rank(rank, first_rank(), ranks());
  if (coordinator_.state(rank) != ReplicaState::removed) return {};
  return fail(ErrorCode::invalid_argument, "data parallel rank {} was removed; ranks are not used again: add another",
              rank);
}

Result<void> FleetHost::check_memory() const {
  const std::uint64_t needed = kv_cache_bytes_ * static_cast<std::uint64_t>(config_.parallel.replica_size());
  const std::uint64_t available = memory_available_bytes();
  if (needed <= available) return {};
  return fail(ErrorCode::resource_exhausted,
              "a further replica needs {} MiB for its KV cache, and {} MiB are available: remove another one, or start "
              "with a smaller --kv-cache-memory",
              needed >> 20, available >> 20);
}

Result<int> FleetHost::add() {
  const int rank = ranks();
  if (config_.parallel.behind_outer_balancer()) {
    return fail(
        ErrorCode::invalid_argument,
        "an outer load balancer is before this server and others, with {} replicas in all (--data-parallel-size), "
        "and rank {} has no door: start all of them with a larger --data-parallel-size",
        config_.parallel.data_parallel_size, rank);
  }
  if (rank >= replica_ids_max) {
    return fail(ErrorCode::resource_exhausted, "{} ranks were given since the start, the limit: start anew", rank);
  }
  CHORUS_TRY_VOID(check_memory());
  if (sources_.size() != 1 || sources_.front()->origin() != ReplicaOrigin::spawned) {
    return fail(ErrorCode::invalid_argument,
                "nodes or a launcher bring these replicas, and their number is fixed: start anew with a larger "
                "--data-parallel-size; one can be added where this process starts all of them");
  }
  CHORUS_TRY(const int added, coordinator_.add_replica(ReplicaOrigin::spawned, monotonic_now()));
  sources_.front()->add(added);
  ranks_.emplace_back().source = sources_.front().get();
  log(LogLevel::info, "Worker rank {} is added", added);
  act();
  return added;
}

Result<void> FleetHost::drain(int rank, bool move) {
  CHORUS_TRY_VOID(check_rank(rank));
  log(LogLevel::info, "Worker rank {} drains: {}", rank,
      move ? "what it has goes elsewhere" : "what it has ends there");
  coordinator_.drain(rank, move, monotonic_now());
  act();
  return {};
}

Result<void> FleetHost::resume(int rank) {
  CHORUS_TRY_VOID(check_rank(rank));
  coordinator_.resume(rank, monotonic_now());
  act();
  return {};
}

Result<void> FleetHost::remove(int rank, bool move) {
  CHORUS_TRY_VOID(check_rank(rank));
  int others = 0;
  for (int other = 0; other < ranks(); ++other) {
    const ReplicaState state = coordinator_.state(other);
    const bool ends = at(other).removed || state == ReplicaState::given_up || state == ReplicaState::removed;
    others += other != rank && !ends ? 1 : 0;
  }
  if (others == 0) {
    return fail(ErrorCode::invalid_argument, "data parallel rank {} is the last one: end the server instead", rank);
  }
  CHORUS_TRY_VOID(coordinator_.remove(rank, move, monotonic_now()));
  at(rank).removed = true;
  act();
  return {};
}

Result<void> FleetHost::restart(int rank) {
  CHORUS_TRY_VOID(check_rank(rank));
  const bool all = config_.parallel.replicas_step_together();
  for (int other = 0; other < ranks(); ++other) {
    if (other == rank || all) at(other).restarting = at(other).link.has_value();
  }
  if (const auto restarted = coordinator_.restart(rank, monotonic_now()); !restarted.ok()) {
    for (Rank& one : ranks_) one.restarting = false;
    return restarted;
  }
  act();
  return {};
}

void FleetHost::pause(bool move) {
  log(LogLevel::info, "All data parallel workers are paused");
  coordinator_.pause(move, monotonic_now());
  act();
}

void FleetHost::resume_all() {
  log(LogLevel::info, "The pause has ended");
  coordinator_.resume_all(monotonic_now());
  act();
}

ReplicaCondition FleetHost::condition_of(int rank) const {
  if (rank >= coordinator_.replicas()) return ReplicaCondition::starting;
  switch (coordinator_.state(rank)) {
    case ReplicaState::stopped:
    case ReplicaState::starting:
      return ReplicaCondition::starting;
    case ReplicaState::ready:
      if (!coordinator_.is_draining(rank)) return ReplicaCondition::ready;
      return coordinator_.is_drained(rank) && requests_on(rank) == 0 ? ReplicaCondition::drained
                                                                     : ReplicaCondition::draining;
    case ReplicaState::killing:
    case ReplicaState::backing_off:
      return ReplicaCondition::restarting;
    case ReplicaState::given_up:
      // One that a node brings is waited for.
      return at(rank).source->origin() == ReplicaOrigin::joins ? ReplicaCondition::restarting
                                                               : ReplicaCondition::given_up;
    case ReplicaState::removed:
      return ReplicaCondition::removed;
  }
  return ReplicaCondition::starting;
}

}  // namespace chorus

// What must hold after every input of a Dispatcher, at a conviction, and at the end.
#include <algorithm>

#include "world.h"

namespace chorus::sim {

// Of the requests that wait nobody has overtaken another one: those that have a replica now came first in the order.
// Suspects wait elsewhere.
void World::check_order(FrontEnd* front_end) {
  const Ledger& ledger = front_end->dispatcher.ledger();
  std::optional<RequestId> left_behind;
  std::erase_if(front_end->waiting, [&](const auto& entry) {
    const RequestId request = entry.second;
    if (!ledger.contains(request)) return true;
    if (ledger.fruitless_deaths(request) >= 2) return ledger.placement_of(request).has_value();
    if (!ledger.placement_of(request)) {
      if (!left_behind) left_behind = request;
      return false;
    }
    if (left_behind) violation(fmt::format("request {} has overtaken {}", request, *left_behind));
    return true;
  });
}

void World::check_bounds(const FrontEnd& front_end) {
  const Ledger& ledger = front_end.dispatcher.ledger();
  for (const int rank : front_end.replicas) {
    const std::uint32_t sequences = ledger.sequences_on(rank);
    if (sequences <= shape_.limits.sequences_per_replica_max || ledger.requests_on(rank) == 1) continue;
    violation(fmt::format("front end {} has {} sequences on replica {}, the window is {}", front_end.id, sequences,
                          rank, shape_.limits.sequences_per_replica_max));
  }
}

// One that counts as drained has nothing, nor is anything on its way to it. Who was not waited for proves nothing.
void World::check_drained() {
  if (shape_.drain_timeout < 10'000'000'000 || over_) return;
  for (int replica = 0; replica < coordinator_.replicas(); ++replica) {
    if (!coordinator_.is_drained(replica)) continue;
    for (const RequestId request : find({replica, coordinator_.epoch(replica)})->requests()) {
      if (!find_front_end(request.client)->alive) continue;  // the replica may not have heard of that yet
      violation(fmt::format("replica {} is drained, and has request {}", replica, request));
    }
  }
}

// Nothing but the convicted request was there when the replica died (or in its world). A drain that was not waited for
// proves nothing.
void World::check_conviction(const ReplicaNews& death, RequestId convicted) {
  if (shape_.drain_timeout < 10'000'000'000) return;
  const Replica* const dead = find(death.replica);
  for (const auto& replica : replicas_) {
    const bool same = replica.get() == dead || (dead->world() != 0 && replica->world() == dead->world());
    if (!same) continue;
    for (const RequestId request : replica->requests()) {
      if (request == convicted) continue;
      violation(fmt::format("request {} was convicted, but {} was on replica {} too", convicted, request,
                            replica->placement().rank));
    }
  }
}

void World::check_end() {
  const auto left = [&](const std::string& what) { violation("at the end " + what); };
  for (const int replica : removing_) {
    clients_.report(&Violations::stuck, fmt::format("replica {} was to be removed and is there", replica));
  }
  if (over_) return;
  for (FrontEnd* const front_end : living_front_ends()) {
    const Dispatcher& dispatcher = front_end->dispatcher;
    if (dispatcher.ledger().requests() != 0 || dispatcher.waiting() != 0) {
      left(fmt::format("front end {} has {} requests", front_end->id, dispatcher.ledger().requests()));
    }
    for (const int rank : front_end->replicas) {
      if (dispatcher.ledger().sequences_on(rank) != 0) left(fmt::format("a ledger counts sequences on {}", rank));
      const ReplicaLoad load = dispatcher.load_of(rank);
      if (load.waiting + load.running != 0) left(fmt::format("{} has a load of {}", rank, load.waiting + load.running));
    }
  }
  for (const auto& replica : replicas_) {
    if (replica->state != Replica::State::running || !is_present(*replica)) continue;
    if (!replica->is_clean()) left(fmt::format("replica {} has work or blocks in use", replica->placement().rank));
  }
}

void World::collect() {
  totals_.requests = clients_.ended();
  totals_.tokens = clients_.tokens();
  totals_.convicted = clients_.convicted();
  totals_.wrongly_convicted = clients_.wrongly_convicted();
  for (const auto& replica : replicas_) {
    const SchedulerStats stats = replica->stats();
    totals_.preemptions += stats.preemptions;
    totals_.cache_hits += stats.prefix_cache_hits;
    totals_.most_in_flight = std::max(totals_.most_in_flight, replica->most_in_flight());
  }
  totals_.pooled = shape_.scheduler.kv_pools > 1 ? 1 : 0;
}

}  // namespace chorus::sim

// What must hold whenever a replica has died, and at the end.
#include <algorithm>

#include "world.h"

namespace chorus::sim {

// The ledger's counters against each other and against what the clients know.
void World::check_counts() {
  const Ledger& ledger = router_.ledger();
  std::size_t placed = 0;
  for (int rank = 0; rank < shape_.replicas; ++rank) placed += ledger.requests_on(rank);
  if (placed + ledger.unplaced() != ledger.requests()) {
    clients_.report(&Violations::other, fmt::format("the ledger counts {} requests on ranks and {} waiting, of {}",
                                                    placed, ledger.unplaced(), ledger.requests()));
  }
  if (config_.sabotage == Sabotage::none && ledger.requests() != clients_.open()) {
    clients_.report(&Violations::other,
                    fmt::format("the ledger holds {} requests, {} are open", ledger.requests(), clients_.open()));
  }
}

void World::check_end() {
  check_counts();
  const auto left = [&](const std::string& what) { clients_.report(&Violations::other, "at the end " + what); };
  if (router_.ledger().requests() != 0) left(fmt::format("the ledger holds {} requests", router_.ledger().requests()));
  for (int rank = 0; rank < shape_.replicas; ++rank) {
    if (router_.ledger().sequences_on(rank) != 0) left(fmt::format("the ledger counts sequences on rank {}", rank));
    const ReplicaLoad& load = router_.loads()[static_cast<std::size_t>(rank)];
    if (load.waiting + load.running != 0)
      left(fmt::format("rank {} has a load of {}", rank, load.waiting + load.running));
  }
  for (const auto& replica : replicas_) {
    if (replica->state != Replica::State::running || !is_present(*replica)) continue;
    if (!replica->is_clean()) left(fmt::format("rank {} has work or blocks in use", replica->placement().rank));
  }
}

void World::collect() {
  totals_.requests = clients_.ended();
  totals_.tokens = clients_.tokens();
  for (const auto& replica : replicas_) {
    const SchedulerStats stats = replica->stats();
    totals_.preemptions += stats.preemptions;
    totals_.cache_hits += stats.prefix_cache_hits;
    totals_.most_in_flight = std::max(totals_.most_in_flight, replica->most_in_flight());
  }
  totals_.pooled = shape_.scheduler.kv_pools > 1 ? 1 : 0;
}

}  // namespace chorus::sim

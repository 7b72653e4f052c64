#include "cluster/load_view.h"

#include <algorithm>

#include "base/check.h"

namespace chorus {

LoadView::LoadView(int ranks) : replicas_(static_cast<std::size_t>(ranks)), loads_(static_cast<std::size_t>(ranks)) {
  CHECK(ranks > 0, "ranks {}", ranks);
}

void LoadView::replica_ready(int rank) {
  replicas_.at(static_cast<std::size_t>(rank)) = {};
  loads_[static_cast<std::size_t>(rank)] = {.accepting = true};
}

void LoadView::replica_died(int rank) {
  replicas_.at(static_cast<std::size_t>(rank)) = {};
  loads_[static_cast<std::size_t>(rank)] = {};
}

void LoadView::set_accepting(int rank, bool accepting) {
  loads_.at(static_cast<std::size_t>(rank)).accepting = accepting;
}

void LoadView::submitted(int rank, std::uint32_t sequences) {
  Replica& replica = replicas_.at(static_cast<std::size_t>(rank));
  replica.unseen.push_back(sequences);
  replica.unseen_sequences += sequences;
  refresh(rank);
}

void LoadView::ended(int rank, std::uint32_t sequences) {
  replicas_.at(static_cast<std::size_t>(rank)).ended_since += sequences;
  refresh(rank);
}

bool LoadView::report(int rank, const LoadReport& report) {
  Replica& replica = replicas_.at(static_cast<std::size_t>(rank));
  const std::uint64_t seen_before = replica.last.submissions_received;
  if (report.submissions_received < seen_before) return false;
  if (report.submissions_received - seen_before > replica.unseen.size()) return false;
  for (std::uint64_t seen = seen_before; seen < report.submissions_received; ++seen) {
    replica.unseen_sequences -= replica.unseen.front();
    replica.unseen.pop_front();
  }
  replica.last = report;
  replica.ended_since = 0;
  refresh(rank);
  return true;
}

// Those that ended are taken from the running ones first. An abort may be counted twice for as long as it is on its way
// (the report after it still holds the sequence): never below zero, and right again with the next report.
void LoadView::refresh(int rank) {
  const Replica& replica = replicas_[static_cast<std::size_t>(rank)];
  ReplicaLoad& load = loads_[static_cast<std::size_t>(rank)];
  const std::uint32_t queued = replica.last.waiting + replica.unseen_sequences;
  const std::uint32_t from_running = std::min(replica.ended_since, replica.last.running);
  load.running = replica.last.running - from_running;
  load.waiting = queued - std::min(queued, replica.ended_since - from_running);
  load.kv_blocks_free = replica.last.kv_blocks_free;
}

}  // namespace chorus

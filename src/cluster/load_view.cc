#include "cluster/load_view.h"

#include <algorithm>

namespace chorus {

void LoadView::submitted(std::uint32_t sequences) {
  unseen_.push_back(sequences);
  unseen_sequences_ += sequences;
}

void LoadView::ended(std::uint32_t sequences) {
  ended_since_ += sequences;
}

bool LoadView::report(const LoadReport& report) {
  const std::uint64_t seen_before = last_.messages_received;
  if (report.messages_received < seen_before) return false;
  if (report.messages_received - seen_before > unseen_.size()) return false;
  for (std::uint64_t seen = seen_before; seen < report.messages_received; ++seen) {
    if (planted_ != PlantedFault::count_load_twice) unseen_sequences_ -= unseen_.front();
    unseen_.pop_front();
  }
  last_ = report;
  ended_since_ = 0;
  return true;
}

// Those that ended are taken from the running ones first. An abort may be counted twice for as long as it is on its way
// (the report after it still holds the sequence): never below zero, and right again with the next report.
ReplicaLoad LoadView::load() const {
  ReplicaLoad load;
  const std::uint32_t queued = last_.waiting + unseen_sequences_;
  const std::uint32_t from_running = std::min(ended_since_, last_.running);
  load.running = last_.running - from_running;
  load.waiting = queued - std::min(queued, ended_since_ - from_running);
  load.kv_blocks_free = last_.kv_blocks_free;
  return load;
}

}  // namespace chorus

// The load of every replica as this front end sees it now: the last report of each, plus what was sent there since.
//
// A report is old when it arrives: requests that were on their way while it was made are not in it. A front end that
// takes its numbers as they stand sends the next burst to a replica whose queue it has just filled. So a report carries
// the number of submissions that the engine had received from this front end when it was made, and those sent after are
// added on top.
//
// Reports come over the same ordered link as the events: a sequence whose end is heard after a report was in that
// report.
#pragma once

#include <cstdint>
#include <deque>
#include <span>
#include <vector>

#include "cluster/balance/load_balancer.h"

namespace chorus {

struct LoadReport {
  std::uint32_t waiting = 0;  // sequences
  std::uint32_t running = 0;
  std::uint64_t kv_blocks_free = 0;
  std::uint64_t submissions_received = 0;  // requests from this front end since this epoch began
};

class LoadView {
 public:
  explicit LoadView(int ranks);
  // A new incarnation: nothing sent, nothing reported.
  void replica_ready(int rank);
  void replica_died(int rank);
  // Draining replicas keep what they have and get nothing new.
  void set_accepting(int rank, bool accepting);

  void submitted(int rank, std::uint32_t sequences);  // one request of so many choices was sent
  void ended(int rank, std::uint32_t sequences);      // so many sequences there finished or were aborted
  // False: it claims more submissions than were sent, or fewer than an earlier report; the replica is faulty.
  bool report(int rank, const LoadReport& report);

  // One a rank; for LoadBalancer::pick(). Valid until the next call of any of the above.
  std::span<const ReplicaLoad> loads() const { return loads_; }

 private:
  struct Replica {
    LoadReport last;
    std::deque<std::uint32_t> unseen;  // sequences of each submission that the last report does not hold, oldest first
    std::uint32_t unseen_sequences = 0;
    std::uint32_t ended_since = 0;  // since the last report
  };
  void refresh(int rank);

  std::vector<Replica> replicas_;
  std::vector<ReplicaLoad> loads_;
};

}  // namespace chorus

// The load of one incarnation of a replica as this front end sees it now: its last report, plus what was sent there
// since.
//
// A report is old when it arrives: requests that were on their way while it was made are not in it. A front end that
// takes its numbers as they stand sends the next burst to a replica whose queue it has just filled. So a report carries
// the number of messages (submissions and aborts) that the engine had received from this front end when it was made,
// and what was submitted after is added on top.
//
// Reports come over the same ordered link as the events: a sequence whose end is heard after a report was in that
// report.
#pragma once

#include <cstdint>
#include <deque>

#include "cluster/balance/load_balancer.h"
#include "cluster/planted_fault.h"

namespace chorus {

struct LoadReport {
  std::uint32_t waiting = 0;  // sequences, of all front ends
  std::uint32_t running = 0;
  std::uint64_t kv_blocks_free = 0;
  std::uint64_t messages_received = 0;  // submissions and aborts from this front end since this epoch began
};

class LoadView {
 public:
  explicit LoadView(PlantedFault planted = PlantedFault::none) : planted_(planted) {}

  void submitted(std::uint32_t sequences);  // one request of so many choices was sent
  void aborted() { submitted(0); }          // an abort, of a request or of a choice, was sent
  void ended(std::uint32_t sequences);      // so many sequences there finished, were aborted or went elsewhere
  // False: it claims more messages than were sent, or fewer than an earlier report; the replica is faulty.
  bool report(const LoadReport& report);

  // For LoadBalancer::pick(); whether it accepts is not known here.
  ReplicaLoad load() const;
  // A report has come that was made after all that was sent: of what was aborted nothing more will be heard.
  bool has_seen_all() const { return unseen_.empty(); }

 private:
  PlantedFault planted_;
  LoadReport last_;
  std::deque<std::uint32_t> unseen_;  // sequences of each message that the last report does not hold, oldest first
  std::uint32_t unseen_sequences_ = 0;
  std::uint32_t ended_since_ = 0;  // since the last report
};

}  // namespace chorus

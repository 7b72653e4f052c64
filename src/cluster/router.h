// The router of one front end: ledger, load view and load balancer put together. It takes requests and frames, and says
// what is to be sent where. fleet/ runs it over real sockets, sim/ over simulated ones; the decisions are the same
// code.
//
// Pure and single-threaded. Every call may add outbound messages; take_messages() gives them in the order in which they
// must go out (the order matters only per rank). When the replica of a request dies the router re-sends it elsewhere by
// itself; while no replica accepts, requests wait here (bounded by LedgerLimits).
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <unordered_map>
#include <vector>

#include "base/result.h"
#include "cluster/balance/load_balancer.h"
#include "cluster/ledger.h"
#include "cluster/load_view.h"
#include "cluster/placement.h"

namespace chorus {

struct RouterMessage {
  enum class Kind : std::uint8_t { add, abort, abort_choice };
  Kind kind = Kind::add;
  Placement to;
  Request request;           // add
  RequestId id;              // every kind
  std::uint32_t choice = 0;  // abort_choice
};

class Router {
 public:
  Router(int ranks, std::unique_ptr<LoadBalancer> balancer, LedgerLimits limits = {});

  // From the supervisor: this incarnation answers; that one never will again (CHECK: no other epoch of the rank is
  // ready). A death gives the last events of the requests that are not tried again (LedgerLimits).
  void replica_ready(Placement replica);
  std::vector<TokenEvent> replica_died(Placement replica);
  // A draining replica finishes what it has and gets nothing new.
  void set_draining(int rank, bool draining);

  // Queues the request at `rank` if that replica is ready, else where the load balancer says, else here.
  Result<void> submit(Request request, std::optional<int> rank);
  // Silent: no event of it comes afterwards. Unknown ids are ignored, it may have just finished.
  void abort(RequestId request);
  void abort_choice(RequestId request, std::uint32_t choice);

  // Frames from a replica. `faulty`: kill the replica and call replica_died() before anything else.
  Judgement on_event(Placement from, TokenEvent* event);
  Judgement on_report(Placement from, const LoadReport& report);

  std::vector<RouterMessage> take_messages();

  const Ledger& ledger() const { return ledger_; }
  std::optional<Epoch> ready_epoch(int rank) const;
  std::span<const ReplicaLoad> loads() const { return loads_.loads(); }

 private:
  void place(RequestId request, int rank);
  void end_if_fruitless(RequestId request, std::vector<TokenEvent>* events);
  void place_waiting();

  std::uint32_t fruitless_deaths_max_;
  Ledger ledger_;
  LoadView loads_;
  std::unique_ptr<LoadBalancer> balancer_;
  std::vector<Epoch> ready_;                            // the epoch that answers; 0: none
  std::unordered_map<RequestId, RequestShape> shapes_;  // of the ledger's requests, for placing them again
  std::vector<RouterMessage> messages_;
};

}  // namespace chorus

// The Dispatcher of one front end: takes requests, gives each an id, chooses the replica, keeps the ledger, and says
// what is to be sent where. fleet/ runs it over real sockets, sim/ over simulated ones; the decisions are the same
// code.
//
// A request waits here until a replica has room for it: at most `sequences_per_replica_max` of this front end's
// sequences are on their way to a replica or running there (one request with more choices than that goes to an empty
// replica), whatever the balancer. Nobody overtakes in the order (waiting_requests.h). What waits is bounded: beyond
// the limits submit() refuses, and nothing grows.
//
// When a replica dies its requests go on elsewhere from the ledger, in their old places in the order. A request that
// was in flight at two deaths, one after the other and with no token of it in between, is suspected of causing them: it
// runs alone, on a replica that the parent lends for it (coordinator.h). A token clears it; two deaths alone
// convict it, and it ends with an error, while those that were beside it go free. A draining replica gets nothing new;
// told to move, what it has goes on elsewhere in the same way, with no token lost and no death counted. Ready again, it
// gets requests once it has none of this front end's: one that came back to it sooner could not tell its tokens from
// those of its stay before.
//
// Pure and single-threaded. Outputs are taken by the caller: messages for each replica in their order, events, notes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <unordered_map>
#include <vector>

#include "base/result.h"
#include "cluster/balance/load_balancer.h"
#include "cluster/fleet_event.h"
#include "cluster/ledger.h"
#include "cluster/load_view.h"
#include "cluster/placement.h"
#include "cluster/planted_fault.h"
#include "cluster/prefix_index.h"
#include "cluster/replica_news.h"
#include "cluster/waiting_requests.h"

namespace chorus {

struct DispatcherLimits {
  // Not yet with a replica. What comes back from a dead replica waits too and is not refused: at most a window each.
  std::size_t requests_waiting_max = 65536;
  std::size_t tokens_waiting_max = std::size_t{1} << 28;  // of their prompts: 1 GiB
  std::size_t prompt_tokens_max = std::size_t{1} << 23;   // of one request
  std::uint32_t sequences_per_replica_max = 512;          // the window
  // To one replica and not taken. At this many it gets no request; aborts of what it has are at most a window more.
  std::size_t messages_waiting_max = 4096;
  // Not taken by the caller. has_room_for_events() says so; who reads the replicas' frames stops then.
  std::size_t events_waiting_max = 65536;
};

struct DispatcherConfig {
  ClientId client = 0;
  bool by_priority = false;
  PrefixKey prefix_key;         // the engines', and
  std::size_t block_size = 16;  // so is this: for policies that look at prefixes
  DispatcherLimits limits;
  PlantedFault planted = PlantedFault::none;
};

// Since the start.
struct DispatcherCounters {
  std::uint64_t prefix_placements = 0;  // requests sent to a replica because it had part of their prompt
  std::uint64_t prefix_tokens = 0;      // that it had of these
  std::uint64_t requests_moved = 0;     // placed, and gone on elsewhere: their replica died, or gave them up
  std::uint64_t tokens_replayed = 0;    // emitted before, and computed anew as part of the prompt
};

struct ReplicaMessage {
  enum class Kind : std::uint8_t { add, abort, abort_choice, reset_prefix_cache };
  Kind kind = Kind::add;
  Request request;           // add
  RequestId id;              // every kind; reset_prefix_cache: its number in the place of a request's
  std::uint32_t choice = 0;  // abort_choice
};

class Dispatcher {
 public:
  Dispatcher(const DispatcherConfig& config, std::unique_ptr<LoadBalancer> balancer);

  // Takes the request, whose id it sets: numbers count from 1 and never return. `replica`: the one that it wishes for;
  // while that one takes no requests any other does. Errors: invalid_argument (nothing to compute, too long),
  // resource_exhausted (a limit; nothing was changed).
  Result<RequestId> submit(Request request, std::optional<int> replica);
  // Silent: no event of it comes afterwards. Unknown ids are ignored, it may have just finished.
  void abort(RequestId request);
  void abort_choice(RequestId request, std::uint32_t choice);

  // Every replica that is known is to forget its prefix cache: before what is submitted from now on gets there. Gives
  // the number by which it is asked whether all of them have; one that has died since has none.
  std::uint64_t reset_prefix_caches();
  bool prefix_caches_are_reset(std::uint64_t number) const;

  // `reason`: of a death, for the error of a request that ends by it ("was killed by SIGKILL").
  void on_news(const ReplicaNews& news, const std::string& reason = {});
  // Frames from a replica. `faulty`: have it killed; its news follows.
  Judgement on_event(Placement from, TokenEvent&& event);
  Judgement on_report(Placement from, const LoadReport& report);
  void on_prefix_cache_reset(Placement from, std::uint64_t number);
  // What it says of its prefix cache.
  void on_prefixes(Placement from, const PrefixFeed& feed);

  // The next message for this incarnation; nullopt: none. They must go out in this order.
  std::optional<ReplicaMessage> take_message(Placement to);
  // Appends what came since the last time.
  void take_events(std::vector<FleetEvent>* events);
  bool has_room_for_events() const { return events_.size() < config_.limits.events_waiting_max; }
  bool has_events() const { return !events_.empty(); }
  std::vector<ClientNote> take_notes();

  const DispatcherCounters& counters() const { return counters_; }
  const Ledger& ledger() const { return ledger_; }
  std::size_t waiting() const { return waiting_.size() + suspects_.size(); }
  ReplicaLoad load_of(int replica) const;
  bool is_ready(Placement replica) const;

 private:
  struct Replica {
    Epoch epoch = 0;
    bool open = true;                 // gets requests
    bool answers_when_empty = false;  // the parent waits for `drained`
    std::uint32_t draining = 0;       // the number of the last draining
    bool moved_away = false;          // something was, and it may still say something of it
    bool opens_when_empty = false;    // ready again since
    std::deque<ReplicaMessage> messages;
    LoadView load;
    std::uint64_t reset_asked = 0, reset_done = 0;  // numbers
  };
  using Replicas = std::map<int, Replica>;
  struct Routing {
    RequestShape shape;
    WaitingRequests::Place place;
  };
  struct Loan {
    Placement replica;
    RequestId suspect;
  };

  Result<void> check(const Request& request) const;
  Replica* find(Placement placement);
  Replica& known(Placement placement);
  void on_ready(Placement placement);
  void on_draining(const ReplicaNews& news);
  void on_death(Placement placement, const std::string& reason);
  void move_away(Placement placement);
  void wait_anew(RequestId request);
  void convict(RequestId request, int replica, const std::string& reason);

  void place_waiting();
  bool place_first();
  bool has_room(const Replicas::value_type& entry, std::uint32_t sequences) const;
  bool takes_any(std::uint32_t sequences) const;
  int pick(RequestId request, const RequestShape& shape);
  void look_at_prefixes(RequestId request);
  void place(RequestId request, int replica, std::uint32_t sequences);
  void take_away(RequestId request, std::optional<Placement> from, ReplicaMessage message, std::uint32_t sequences);
  void forget(RequestId request);

  void ask_for_loan();
  void use_loan(Placement placement);
  void return_loan();
  bool is_empty(int rank, const Replica& replica) const;
  void on_empty(int replica);

  DispatcherConfig config_;
  Ledger ledger_;
  std::unique_ptr<LoadBalancer> balancer_;
  std::optional<PrefixIndex> prefixes_;              // where the policy looks at them
  Replicas replicas_;                                // ready ones
  std::unordered_map<RequestId, Routing> routings_;  // of the ledger's requests
  WaitingRequests waiting_;
  std::map<WaitingRequests::Order, RequestId> suspects_;  // that wait to be run alone
  bool asked_for_loan_ = false;
  std::optional<Loan> loan_;
  std::uint64_t next_number_ = 1;
  std::uint64_t admissions_ = 0;
  std::uint64_t finishes_ = 0;
  std::uint64_t prefix_cache_resets_ = 0;
  DispatcherCounters counters_;
  std::vector<ReplicaLoad> loads_;  // pick()'s, and
  std::vector<int> ranks_;          // whose they are
  std::vector<FleetEvent> events_;
  std::vector<ClientNote> notes_;
};

}  // namespace chorus

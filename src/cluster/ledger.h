// The ledger: what this front end knows of every request in flight. The prompt, the parameters with their seed, every
// token already emitted, and the replica that computes it. When a replica dies the ledger gives each of its requests
// back as prompt + emitted tokens; by the promise (same request, same tokens) the client's stream goes on as if nothing
// had happened.
//
// It is also the judge of what a replica says: each choice's positions are accepted as 0, 1, 2, ... once each, then one
// finish. Anything of an older epoch is dropped; a gap or a contradiction is a fault of the replica.
//
// A token and the finish that it causes travel in one TokenEvent (sched/ makes them so). Hence a choice whose last
// token was accepted is finished, and none is ever given back with nothing left to compute.
//
// Pure and single-threaded. Memory: an entry of prompt + n * max_tokens tokens for each request; how many there may be
// is the Dispatcher's to bound.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/result.h"
#include "cluster/placement.h"
#include "cluster/planted_fault.h"
#include "request/request.h"

namespace chorus {

enum class Verdict : std::uint8_t {
  accepted,  // hand it to the client
  dropped,   // of an older epoch, of a request or choice that has ended, or a repetition: ignore it
  faulty,    // the replica broke the protocol: it is to be killed
};

struct Judgement {
  Verdict verdict = Verdict::dropped;
  bool request_finished = false;  // this event ended the request's last choice; the ledger has forgotten it
  bool choice_finished = false;   // this event ended its choice
  std::string fault;              // with Verdict::faulty: what was wrong
};

class Ledger {
 public:
  explicit Ledger(PlantedFault planted = PlantedFault::none) : planted_(planted) {}

  // Takes the request; it waits for place(). Its id must never have been used before (CHECK: in use): late frames of an
  // ended request are told from a living one by the id alone. Refuses what has nothing to compute.
  Result<void> admit(Request request);

  // Puts a waiting request on a replica and gives what is to be sent there: the prompt and, of each unfinished choice,
  // what it has emitted. CHECK: the request waits, and this epoch of the replica has not died.
  Request place(RequestId request, Placement placement);
  // Takes it off again: it waits for place() anew, and what is still said of it from there is dropped.
  void withdraw(RequestId request);

  // Judges one event from a replica and, when it accepts it, records it. May take prompt logprobs out of `event` that
  // were delivered before.
  Judgement on_event(Placement from, TokenEvent* event);

  // Ends a request, or one choice of it (its last unfinished choice ends the request). Gives the replica to be told, if
  // any.
  std::optional<Placement> abort(RequestId request);
  std::optional<Placement> abort_choice(RequestId request, std::uint32_t choice);

  // This epoch of the replica, and every older one, will not be listened to again. Its requests wait for place() anew;
  // returns their ids in the order of admission.
  std::vector<RequestId> replica_died(Placement placement);
  // Its id is never used again.
  void replica_removed(int replica);

  // Ends a request for a reason of this side. Gives the events for the client: each unfinished choice's finish, with
  // FinishReason::error.
  std::vector<TokenEvent> give_up(RequestId request, const std::string& error);

  // Exact counts of this side; those of a replica: on its present epoch.
  std::size_t requests() const { return entries_.size(); }
  std::uint32_t requests_on(int replica) const;
  std::uint32_t sequences_on(int replica) const;                  // unfinished choices
  std::vector<RequestId> requests_at(Placement placement) const;  // in the order of admission

  // Of a living request.
  bool contains(RequestId request) const { return entries_.contains(request); }
  std::optional<Placement> placement_of(RequestId request) const;  // nullopt: waits or unknown
  std::uint32_t unfinished_choices(RequestId request) const;       // 0: unknown
  std::span<const TokenId> prompt(RequestId request) const;        // empty: unknown
  std::uint32_t deaths_seen(RequestId request) const;              // replicas that died with it
  // The same since its last token. One that brings its replicas down is among those where this grows.
  std::uint32_t fruitless_deaths(RequestId request) const;

 private:
  struct Choice {
    std::uint32_t index = 0;
    std::vector<TokenId> emitted;
    bool finished = false;
    bool aborted = false;
  };
  struct Entry {
    // First what each token needs: of many requests at once it is in no cache.
    std::vector<Choice> choices;
    std::optional<Placement> placement;
    std::uint32_t max_tokens = 0;  // the request's
    std::uint32_t unfinished = 0;
    std::uint32_t fruitless_deaths = 0;
    bool prompt_logprobs_delivered = false;
    std::uint32_t deaths_seen = 0;
    std::uint64_t admission = 0;
    Request request;  // as admitted, without its choices
  };
  struct Replica {
    Epoch died = 0;  // the newest epoch known to be dead
    std::uint32_t requests = 0;
    std::uint32_t sequences = 0;
  };
  using Entries = std::unordered_map<RequestId, Entry>;

  static Choice* find_choice(Entry& entry, std::uint32_t index);
  static std::string fault_of(const Entry& entry, const Choice& choice, const TokenEvent& event);
  bool take_prompt_logprobs(Entry& entry, TokenEvent* event);
  void end_choice(Entry& entry, Choice& choice);
  void take_off(Entry& entry);
  void forget(Entries::iterator at);

  PlantedFault planted_;
  Entries entries_;
  std::map<int, Replica> replicas_;
  std::uint64_t admissions_ = 0;
};

}  // namespace chorus

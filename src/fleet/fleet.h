// The client of N engine processes, which it spawns, watches and ends: what an offline command (generate, run, bench)
// and a server's front end stand on. Carries out what the Coordinator and a Dispatcher of cluster/ decide.
//
// A replica that dies (its pidfd becomes readable, its socket breaks, its heartbeat or its progress stops) is noticed
// within 20 ms of the event, a socket alone within 270 ms; every request it held goes on elsewhere from the ledger as
// prompt + emitted tokens. The caller sees events as if nothing had happened: each choice's positions 0, 1, 2, ... once
// each, then one finish. Each replica that dies is started again (a few times in a row, with back-off) and then given
// up, and with it those that it steps together with; poll() fails when all are given up. A request that was in flight
// in two deaths, one after the other and with no token of it in between, runs alone; after two deaths alone it ends
// with FinishReason::error, and the others go on.
//
// Single-threaded: one thread calls everything, and lives as long as the fleet does (its engines die with it).
//
// What is submitted waits here, and goes out late: at most twice max_num_seqs sequences a replica are on their way or
// running, so that the work spreads by how fast each replica is. What waits is bounded (DispatcherLimits): beyond it
// submit() answers resource_exhausted.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "cluster/dispatcher.h"
#include "cluster/fleet_event.h"
#include "cluster/placement.h"
#include "config/engine_config.h"
#include "config/model_config.h"
#include "request/engine_load.h"
#include "request/request.h"

namespace chorus {

class FleetHost;

// Ranks count on: those that are added come after those that there were, and none is used again.
inline constexpr int replica_ids_max = 4096;

// "no data parallel rank 5: there are 4", or which ones are here.
Error no_such_rank(int rank, int first, int end);

enum class ReplicaCondition : std::uint8_t {
  starting,
  ready,
  draining,    // gets nothing new
  drained,     // and has nothing
  restarting,  // its process has ended, or ends
  given_up,
  removed,
};
const char* name_of(ReplicaCondition condition);

struct ReplicaStatus {
  int dp_rank = 0;
  bool alive = false;                                       // ready, draining or drained
  ReplicaCondition condition = ReplicaCondition::starting;  // a front end in another process knows ready and draining
  Epoch epoch = 0;
  int pid = 0;
  std::uint32_t in_flight = 0;  // requests, counted exactly on this side
  EngineLoad load;              // last reported
  std::uint32_t deaths = 0;     // of its incarnations, those that an operator ended aside; only a host tells them
};

struct FleetTimes {
  double load_s = 0;               // weights packed
  double ready_s = 0;              // start() called until the last replica was READY
  std::uint64_t weight_bytes = 0;  // packed, one copy a node
  std::string profile;             // "amx-bf16/bfloat16": the numerics profile
};

// What a caller that waits in another event loop waits for before it calls poll(0).
struct FleetWait {
  int descriptor = -1;  // until it is readable; -1: nothing but the time
  int timeout_ms = 0;   // at most so long
};

class Fleet {
 public:
  virtual ~Fleet() = default;  // ends every engine: SHUTDOWN, then SIGKILL after a bound

  // Queues the request at replica `dp_rank`, or where the load balancer says. If that rank is dead, or dies, any other
  // takes it. Gives it its id, which no other request of this fleet ever has; the one that it comes with is not read.
  // Goes out with others that come before the next poll().
  virtual Result<RequestId> submit(Request request, std::optional<int> dp_rank) = 0;
  virtual void abort(RequestId request) = 0;
  virtual void abort_choice(RequestId request, std::uint32_t choice) = 0;

  // As Dispatcher's: the prefix caches of all replicas.
  virtual std::uint64_t reset_prefix_caches() = 0;
  virtual bool prefix_caches_are_reset(std::uint64_t number) const = 0;

  // Waits at most timeout_ms for events and appends them. Fails when no replica can be kept alive.
  virtual Result<void> poll(int timeout_ms, std::vector<FleetEvent>* events) = 0;

  // As things are now: after each call of another function it may be something else, but for the descriptor.
  virtual FleetWait wait() = 0;

  virtual std::vector<ReplicaStatus> replicas() const = 0;
  virtual DispatcherCounters counters() const = 0;  // of this front end
  virtual FleetTimes times() const = 0;
};

// One whose host is in this process too.
class HostedFleet : public Fleet {
 public:
  // For an operator: what is asked of it is done as poll() goes on.
  virtual FleetHost& host() = 0;
};

}  // namespace chorus

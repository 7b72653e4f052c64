// Where replicas come from: this process spawns them (spawned_replicas.h), a launcher has started them
// (connected_replicas.h), nodes bring them (launch/joining_replicas.h), Ray places them (launch/ray_replicas.h). The
// host (host.h) asks a source for each incarnation of a rank and then knows no difference.
//
// A source never waits and decides nothing about lives and deaths: what it sees it tells the host with advance().
// One thread calls everything.
#pragma once

#include <poll.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "cluster/coordinator.h"
#include "config/engine_config.h"
#include "exec/load_weights.h"
#include "fleet/replica_link.h"
#include "protocol/messages.h"

namespace chorus {

struct FleetSetup;

// What a source may ask of its host.
class SourceHost {
 public:
  virtual int ranks() const = 0;
  virtual ReplicaState state(int rank) const = 0;
  virtual bool was_ready(int rank) const = 0;             // some incarnation of it was READY
  virtual ReplicaLink* link(int rank) = 0;                // of the present incarnation; nullptr: none
  virtual EngineStart engine_start(Placement) const = 0;  // CONFIG of an engine; without what its machine decides

 protected:
  ~SourceHost() = default;
};

struct SourceEvent {
  enum class Kind : std::uint8_t {
    joined,           // all parts of the rank are there: it can begin
    left,             // one of them has gone before it began
    broken,           // the present incarnation can do no more; reason: why ("worker 1: ..."), or `last_words`
    will_not_return,  // the rank will not be brought again; reason: why
  };
  Kind kind = Kind::joined;
  int rank = 0;
  std::string reason;
  std::optional<FatalMessage> last_words = {};
};

class ReplicaSource {
 public:
  virtual ~ReplicaSource() = default;

  virtual bool brings(int rank) const = 0;
  virtual ReplicaOrigin origin() const = 0;
  // Of the rank something is started here: it counts in "Starting X data parallel workers".
  virtual bool starts(int) const { return true; }

  // One more rank is of it, which it spawns: an operator has added it. Only where origin() is `spawned`.
  virtual void add(int) {}

  // First, before weights are loaded: may settle what the configuration leaves to it. `setup`: without its sources;
  // what it refers to outlives the source.
  virtual Result<void> prepare(const FleetSetup& setup, const ModelConfig& model, EngineConfig* config) = 0;
  // The weights are loaded; replicas may come. `host` outlives the source.
  virtual void open(SourceHost* host, const EngineConfig& config, const ModelConfig& model,
                    const LoadedWeights& weights) = 0;
  // While the fleet starts, once a turn: why it cannot.
  virtual Result<void> check_start(Nanoseconds) { return {}; }

  // The next incarnation. `world`: the number of the world that it shares with other replicas; 0: none. Numbers rise.
  virtual Result<ReplicaLink> begin(Placement replica, std::uint64_t world) = 0;
  // Its engine has said HELLO: sends what it needs to start.
  virtual void configure(ReplicaLink* engine) = 0;
  // Its engine has said CONTACT.
  virtual Result<void> take_contact(Placement, const Frame&) {
    return fail(ErrorCode::invalid_argument, "CONTACT from an engine that has all of its workers");
  }
  // This incarnation is dead for everybody.
  virtual void ended(Placement) {}

  virtual void append_descriptors(std::vector<pollfd>*) const {}
  virtual std::optional<Nanoseconds> next_deadline() const { return std::nullopt; }
  virtual std::vector<SourceEvent> advance(Nanoseconds) { return {}; }

  // The fleet ends: its engines have been told. Tells what is not one of them.
  virtual void shut_down() {}
};

using ReplicaSources = std::vector<std::unique_ptr<ReplicaSource>>;

}  // namespace chorus

// One replica without its process: scheduler + executor. Requests are added and aborted between steps; step() gives the
// executor as many batches as it takes, waits for the oldest and reports its result. Single-threaded. Knows nothing
// of text, sockets or other replicas.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "config/engine_config.h"
#include "config/model_config.h"
#include "exec/executor.h"
#include "request/engine_load.h"
#include "request/prefix_hash.h"
#include "request/request.h"

namespace chorus {

inline constexpr int wave_vote_steps = 16;

class EngineCore {
 public:
  virtual ~EngineCore() = default;
  // Takes the request, or fails it by an event of the next step(): prompt empty, longer than max_model_len, token id
  // out of range, needs more KV blocks than there are. The id must not be in use (CHECK: contains()).
  virtual void add(Request request) = 0;
  virtual bool contains(RequestId request) const = 0;
  // Ends the request, or one choice of it, at once and silently. Unknown ids are ignored: it may have just finished.
  virtual void abort(RequestId request) = 0;
  virtual void abort_choice(RequestId request, std::uint32_t choice) = 0;
  // Ends every request of this client, likewise; gives their number.
  virtual std::size_t abort_client(ClientId client) = 0;
  // Batches that the executor still computes are work too.
  virtual bool has_work() const = 0;

  // Replicas that step together (ExecutorInfo::steps_together) do so in waves, numbered from 1: a wave begins on each
  // when it is told of it, and ends on all after the same step, when none has work; every wave_vote_steps steps they
  // ask each other. A replica whose work comes between two waves waits for the next. Elsewhere there are no waves: work
  // is reason enough.
  virtual void begin_wave(std::uint64_t wave) = 0;  // and those before it
  virtual std::uint64_t waves_ended() const = 0;
  // step() has to be called: there is work, or a wave to take part in.
  virtual bool must_step() const = 0;
  // One step, which begins at `now`; appends to `events`. An error is the death of the replica.
  virtual Result<void> step(Nanoseconds now, std::vector<TokenEvent>* events) = 0;
  virtual EngineLoad load() const = 0;
  // As Scheduler::reset_prefix_cache().
  virtual void reset_prefix_cache() = 0;
  // For clients that choose engines by it (LoadBalancerName::prefix_affinity): how the prefix cache has changed since
  // the last call, and all that is in it.
  virtual bool feeds_prefixes() const = 0;
  virtual PrefixFeed take_prefix_changes() = 0;
  virtual PrefixFeed prefixes() = 0;
};

// `prefix_key`: the fleet's.
std::unique_ptr<EngineCore> make_engine_core(const EngineConfig& config, const ModelConfig& model,
                                             std::unique_ptr<Executor> executor, const PrefixKey& prefix_key = {});

}  // namespace chorus

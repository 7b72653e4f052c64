// Continuous batching: which tokens of which sequences the next step computes. Pure: no thread, clock, file or socket;
// the same calls give the same plans in production, in tests and in simulation.
//
//   scheduler.add(request);
//   while (scheduler.has_work()) {
//     while (scheduler.plans_in_flight() < config.plans_in_flight_max) {
//       const StepPlan& plan = scheduler.schedule(now);
//       if (plan.rows == 0) break;                // nothing can be computed now
//       executor.submit(plan);
//     }
//     if (scheduler.plans_in_flight() > 0) executor.collect(&result);   // of the oldest plan in flight
//     scheduler.complete(result, now, &events);
//   }
//
// Rules. A sequence is one choice of one request. Its rank is its arrival, or (priority, arrival) under the priority
// policy, and never changes.
//  * One token budget per step (max_num_batched_tokens), one row per token. Running sequences take from it first, by
//    rank: one row when decoding, as many rows as are left when part of the prompt is still to be computed (chunked
//    prefill). Then waiting sequences are admitted in rank order, none overtaking one that does not fit.
//  * A sequence is admitted when blocks for all its known tokens are free; of layers with a window for those that the
//    step reads and writes, and what no later row sees is given back as it goes on (kv_shape.h). It takes one more
//    block whenever it grows over the end of the last one. When none is free the running sequence of the last rank is
//    preempted: its blocks are released (full ones stay in the prefix cache), its output is kept, and it waits again at
//    its rank, that is in front of whatever came later. It computes its tokens again when it is its turn.
//  * The first running sequence is never preempted by another, and no request is accepted that would not fit alone: so
//    every step makes progress and every request ends.
//  * Of a request with several choices the first unfinished one computes the prompt. The others wait for it, then share
//    its full prompt blocks by reference and compute the tail themselves.
//
// With plans_in_flight_max = D > 1 (pipeline stages) further plans are made before the results of earlier ones are
// known:
//  * A sequence is in one plan in flight at most, and is neither planned again nor preempted until that one is
//  completed.
//    One that needs a block which only such sequences of a later rank could give waits for them, and with it all after
//    it.
//  * A plan takes no more than its share, ceil(sequences / D), so that every stage has something to do.
//  * A sequence may end (abort) while it is in flight. Its blocks are free at once: every stage computes the plans in
//    order, so whoever gets a block writes it after the ended sequence did. Its result is ignored.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/clock.h"
#include "base/numerics.h"
#include "request/request.h"
#include "sched/kv_shape.h"
#include "sched/prefix_cache.h"
#include "sched/step_plan.h"

namespace chorus {

struct SchedulerConfig {
  std::int32_t max_num_seqs = 256;             // running at a time
  std::int32_t max_num_batched_tokens = 2048;  // rows per step
  std::int32_t max_model_len = 2048;           // prompt + output tokens of a sequence
  std::int32_t block_size = 16;                // tokens per KV block
  std::int32_t kv_blocks = 0;                  // in all
  std::int32_t plans_in_flight_max = 1;        // pipeline stages
  std::int32_t kv_pools = 1;                   // context ranks; a block belongs to one (exec/executor.h, kv_pools.h)
  std::int32_t kv_pool_tokens = attention_partition_keys;  // of a sequence on one before the next's turn; whole blocks
  KvWindow kv_window;                                      // of the layers that have one (exec/executor.h)
  std::int32_t vocab_size = 0;
  bool enable_prefix_caching = true;
  bool by_priority = false;                           // else first come, first served
  std::vector<TokenId> eos_token_ids;                 // ascending
  std::array<std::uint64_t, 2> prefix_hash_key = {};  // secret, so that no user can make prompts that collide
  bool feeds_prefixes = false;                        // take_prefix_changes() is asked now and then
};

inline KvShape kv_shape(const SchedulerConfig& config) {
  const KvPools pools{config.kv_pools, config.kv_pools == 1 ? 1 : config.kv_pool_tokens / config.block_size};
  return {pools, config.kv_window, config.block_size, config.max_num_batched_tokens};
}

// Counters since the start, and what holds now.
struct SchedulerStats {
  std::uint32_t waiting = 0, running = 0;                 // sequences
  std::uint64_t kv_blocks_free = 0, kv_blocks_total = 0;  // cached but unused ones count as free
  std::uint64_t preemptions = 0;
  std::uint64_t prefix_cache_queries = 0, prefix_cache_hits = 0;  // tokens
  std::uint64_t prefix_cache_resets = 0;
  std::uint64_t prompt_tokens = 0,
                output_tokens = 0;  // prompt rows computed (again after a preemption), tokens sampled
  std::uint64_t rows = 0;           // of all plans that were completed
};

class Scheduler {
 public:
  virtual ~Scheduler() = default;

  // Queues every choice of the request. One that cannot be served (prompt empty or longer than max_model_len, token id
  // out of range, more KV blocks needed than there are) fails by an event of each choice in the next complete(). A
  // request with emitted tokens goes on after them. The id must not be in use (CHECK: contains()).
  virtual void add(Request request) = 0;
  // The request has choices that have not ended.
  virtual bool contains(RequestId request) const = 0;
  // Ends the request, or one choice, at once and silently. Unknown ids are ignored.
  virtual void abort(RequestId request) = 0;
  virtual void abort_choice(RequestId request, std::uint32_t choice) = 0;
  // Ends every request of this client, likewise; gives their number.
  virtual std::size_t abort_client(ClientId client) = 0;
  // Something to compute, in flight or to tell.
  virtual bool has_work() const = 0;

  // The next plan, which then is in flight. rows == 0: nothing can be computed now, because there is nothing or because
  // all that there is waits for plans in flight; such a plan is not in flight and names nothing. What the plan points
  // to is valid until the next call of this object. CHECK: fewer than plans_in_flight_max plans are in flight.
  // `now`, here and in complete(), is for what is told of times alone (PrefillReport); it decides nothing.
  virtual const StepPlan& schedule(Nanoseconds now) = 0;
  // The result of the oldest plan in flight, parallel to it; appends to `events` in plan order, failed requests first.
  // With no plan in flight `result` is not looked at, and failed requests alone are told.
  virtual void complete(const StepResult& result, Nanoseconds now, std::vector<TokenEvent>* events) = 0;
  virtual std::int32_t plans_in_flight() const = 0;

  virtual SchedulerStats stats() const = 0;
  // No later request, and no sequence that is admitted anew, finds a block that was computed before. What runs keeps
  // its blocks for itself.
  virtual void reset_prefix_cache() = 0;
  // How the prefix cache has changed since the last call, or all that is in it; where `feeds_prefixes`.
  virtual PrefixFeed take_prefix_changes() = 0;
  virtual PrefixFeed prefixes() = 0;
  // Verifies every invariant between tables, reference counts and queues (CHECK); for tests and simulation, O(all
  // blocks).
  virtual void check_invariants() const = 0;
};

// `hash` is another function only in tests of collisions.
std::unique_ptr<Scheduler> make_scheduler(const SchedulerConfig& config, PrefixHash hash = prefix_hash);

}  // namespace chorus

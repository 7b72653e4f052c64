// Continuous batching: which tokens of which sequences the next step computes. Pure: no thread, clock, file or socket;
// the same calls give the same plans in production, in tests and in simulation.
//
//   scheduler.add(request);
//   while (scheduler.has_work()) {
//     const StepPlan& plan = scheduler.schedule();
//     executor.execute(plan, &result);          // skipped when plan.rows == 0
//     scheduler.complete(result, &events);
//   }
//
// Rules. A sequence is one choice of one request. Its rank is its arrival, or (priority, arrival) under the priority
// policy, and never changes.
//  * One token budget a step (max_num_batched_tokens), one row a token. Running sequences take from it first, in rank
//    order: one row when decoding, as many rows as are left when part of the prompt is still to be computed (chunked
//    prefill). Then waiting sequences are admitted in rank order, none overtaking one that does not fit.
//  * A sequence is admitted when blocks for all its known tokens are free. It takes one more block whenever it grows
//    over the end of the last one. When none is free the running sequence of the last rank is preempted: its blocks
//    are released (full ones stay in the prefix cache), its output is kept, and it waits again at its rank, that is in
//    front of whatever came later. It computes its tokens again when it is its turn.
//  * The first running sequence is never preempted by another, and no request is accepted that would not fit alone: so
//    every step makes progress and every request ends.
//  * Of a request with several choices the first unfinished one computes the prompt. The others wait for it, then share
//    its full prompt blocks by reference and compute the tail themselves.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "sched/prefix_cache.h"
#include "sched/request.h"
#include "sched/step_plan.h"

namespace chorus {

struct SchedulerConfig {
  std::int32_t max_num_seqs = 256;             // running at a time
  std::int32_t max_num_batched_tokens = 2048;  // rows a step
  std::int32_t max_model_len = 2048;           // prompt + output tokens of a sequence
  std::int32_t block_size = 16;                // tokens a KV block
  std::int32_t kv_blocks = 0;                  // in all
  std::int32_t vocab_size = 0;
  bool enable_prefix_caching = true;
  bool by_priority = false;                           // else first come, first served
  std::vector<TokenId> eos_token_ids;                 // ascending
  std::array<std::uint64_t, 2> prefix_hash_key = {};  // secret, so that no user can make prompts that collide
};

// Counters since the start, and what holds now.
struct SchedulerStats {
  std::uint32_t waiting = 0, running = 0;                 // sequences
  std::uint64_t kv_blocks_free = 0, kv_blocks_total = 0;  // cached but unused ones count as free
  std::uint64_t preemptions = 0;
  std::uint64_t prefix_cache_queries = 0, prefix_cache_hits = 0;  // tokens
  std::uint64_t prompt_tokens = 0,
                output_tokens = 0;  // prompt rows computed (again after a preemption), tokens sampled
};

class Scheduler {
 public:
  virtual ~Scheduler() = default;

  // Queues every choice of the request. One that cannot be served (prompt empty or longer than max_model_len, token id
  // out of range, more KV blocks needed than there are) fails by an event of each choice in the next complete(). A
  // request with emitted tokens goes on after them. The id must not be in use (CHECK).
  virtual void add(Request request) = 0;
  // Ends the request, or one choice, at once and silently. Unknown ids are ignored.
  virtual void abort(RequestId request) = 0;
  virtual void abort_choice(RequestId request, std::uint32_t choice) = 0;
  // Something to compute or to tell.
  virtual bool has_work() const = 0;

  // The next step. rows == 0: nothing to compute now, but complete() must still be called (failed requests are told
  // there). The plan points into this object and is valid until complete(). No add or abort between the two calls
  // (CHECK).
  virtual const StepPlan& schedule() = 0;
  // What came of that plan, parallel to it; appends to `events` in plan order, failed requests first.
  virtual void complete(const StepResult& result, std::vector<TokenEvent>* events) = 0;

  virtual SchedulerStats stats() const = 0;
  // Verifies every invariant between tables, reference counts and queues (CHECK); for tests and simulation, O(all
  // blocks).
  virtual void check_invariants() const = 0;
};

// `hash` is another function only in tests of collisions.
std::unique_ptr<Scheduler> make_scheduler(const SchedulerConfig& config, PrefixHash hash = prefix_hash);

}  // namespace chorus

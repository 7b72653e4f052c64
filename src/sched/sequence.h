// The scheduler's view of a request: one Sequence per choice. Plain values; the scheduler owns them and changes them.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "base/clock.h"
#include "request/request.h"
#include "sched/prefix_cache.h"
#include "sched/step_plan.h"

namespace chorus {

struct RequestState;

enum class SequenceStatus : std::uint8_t { waiting, running, finished };

struct Sequence {
  std::uint64_t id = 0;  // arrival number: unique, rising
  RequestState* request = nullptr;
  std::uint32_t choice = 0;
  SequenceStatus status = SequenceStatus::waiting;
  std::vector<TokenId> history;      // prompt and output so far
  std::int32_t computed = 0;         // of history, the tokens whose keys and values are in the blocks
  std::vector<BlockId> block_table;  // block i holds positions [i * block_size, (i + 1) * block_size)
  // As in SequencePlan: equally long, with blocks from index window_first on. Empty before it is first admitted.
  std::vector<std::vector<BlockId>> window_tables;
  std::int32_t window_first = 0;
  // The first cached_blocks blocks are known to the prefix cache (themselves or an equal one), the chain being at
  // `link`.
  std::int32_t cached_blocks = 0;
  PrefixLink link;
  // The plan in flight that names it (a slot of the scheduler's ring) and its place there; -1: none.
  std::int32_t plan_slot = -1;
  std::size_t plan_index = 0;
  bool ever_planned = false;  // the executor has heard of it
  bool prefill_told = false;
  Nanoseconds begun_at = 0;       // first planned
  std::int32_t found_cached = 0;  // tokens that were computed already when it was first admitted
  bool link_lost = false;         // the cache no longer knows blocks that it has: add none behind them
  std::uint32_t preemptions_untold = 0;

  bool in_flight() const { return plan_slot >= 0; }
  std::int32_t length() const { return static_cast<std::int32_t>(history.size()); }
};

struct RequestState {
  Request request;  // request.prompt stays; choices are in `sequences`
  std::int32_t prompt_length = 0;
  std::int64_t output_limit = 0;                     // max_tokens, clamped to max_model_len
  std::vector<TokenId> banned;                       // below min_tokens
  PrefixLink root;                                   // of its chain of cached blocks: by its cache salt
  std::vector<std::unique_ptr<Sequence>> sequences;  // by choice as they came; finished ones stay until all are
  // Predictions of prompt tokens 1, 2, ... so far; told once with a token event of the first unfinished choice.
  std::vector<PositionLogprobs> prompt_logprobs;
  bool prompt_logprobs_told = false;

  bool wants_prompt_logprobs() const {
    return request.params.prompt_logprobs.has_value() && !request.skip_prompt_logprobs && !prompt_logprobs_told;
  }
  bool prompt_logprobs_complete() const {
    return prompt_logprobs.size() + 1 == static_cast<std::size_t>(prompt_length);
  }
  // Computes the prompt for all, and its logprobs. Null when every choice has finished.
  Sequence* leader() const {
    for (const auto& sequence : sequences) {
      if (sequence->status != SequenceStatus::finished) return sequence.get();
    }
    return nullptr;
  }
};

// Order of service: lower priority number first when that counts, then earlier arrival.
struct ByRank {
  bool by_priority = false;
  bool operator()(const Sequence* a, const Sequence* b) const {
    if (by_priority && a->request->request.priority != b->request->request.priority) {
      return a->request->request.priority < b->request->request.priority;
    }
    return a->id < b->id;
  }
};

}  // namespace chorus

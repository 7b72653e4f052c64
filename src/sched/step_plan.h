// One step of an engine: what the scheduler asks the executor to compute, and what comes back.
//
// The plan is flat and points into buffers that the scheduler owns; these stay until the scheduler's next call, so
// whoever needs them for longer copies them. A row is one token at one absolute position of one sequence. Rows of a
// sequence are adjacent and in order.
//
// Several plans may be in flight at a time (pipeline stages). They are computed in the order in which they were
// planned, by every stage, so a later one finds what an earlier one has written, and may write where an earlier one
// reads.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "request/request.h"

namespace chorus {

using BlockId = std::int32_t;

// A sequence: one choice of one request. `history` is prompt + output so far, of which [start, start + count) is
// computed in this step. When `sample` is set the last row's logits give the next output token.
struct SequencePlan {
  std::uint64_t sequence = 0;            // unique in this engine
  std::int32_t start = 0;                // absolute position of the first row
  std::int32_t count = 0;                // rows in this step
  std::span<const BlockId> block_table;  // block i holds positions [i * block_size, (i + 1) * block_size)
  // The same for layers with a sliding window, in KvWindow::tables tables. Entries of blocks that no row of the step
  // sees are ids of blocks, and mean nothing.
  std::span<const std::vector<BlockId>> window_tables;
  std::span<const TokenId> history;  // all known tokens; history.size() >= start + count
  std::int32_t prompt_length = 0;    // history[0, prompt_length) is the prompt
  bool sample = false;
  std::uint32_t choice = 0;  // Philox key
  const SamplingParams* params = nullptr;
  // Rows whose prompt logprobs are wanted: predictions for history[start + 1 .. start + count]; false for most.
  bool prompt_logprobs = false;
  std::span<const TokenId> banned;  // EOS and stop ids while below min_tokens
};

struct StepPlan {
  std::vector<SequencePlan> sequences;
  std::int32_t rows = 0;  // sum of count
  // The `sequence` numbers of earlier plans' sequences that finished, failed or were aborted since the last plan:
  // whoever keeps something of them may forget it. One that was preempted has not ended. One that was aborted may still
  // be in a plan in flight, that is in an earlier one.
  std::vector<std::uint64_t> ended;
};

// Parallel to StepPlan::sequences.
struct SequenceResult {
  TokenId token = -1;                             // -1: none was sampled
  bool not_a_number = false;                      // the logits held NaN (or only -inf): this sequence alone fails
  PositionLogprobs logprobs;                      // filled when params->logprobs
  std::vector<PositionLogprobs> prompt_logprobs;  // of rows [start, start+count) that predict a prompt token
  bool operator==(const SequenceResult&) const = default;
  static constexpr auto fields(auto& self, auto&& visit) {
    return visit(self.token, self.not_a_number, self.logprobs, self.prompt_logprobs);
  }
};

struct StepResult {
  std::vector<SequenceResult> sequences;
  bool operator==(const StepResult&) const = default;
  static constexpr auto fields(auto& self, auto&& visit) { return visit(self.sequences); }
};

}  // namespace chorus

// Sequences whose tokens are all known beforehand, and plans over them: what a ModelRunner is given in its tests.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "sched/step_plan.h"

namespace chorus {

// What a plan points into; it outlives the plan.
struct PlannedSequence {
  std::uint64_t number = 0;
  std::vector<TokenId> history;  // prompt, then output
  std::int32_t prompt_length = 0;
  std::vector<BlockId> blocks;
  std::vector<std::vector<BlockId>> windows;  // as many tables as any model has
  SamplingParams params;
  std::uint32_t choice = 0;
  std::vector<TokenId> banned;
};

// Seeded by `number`. Block b of it is first_block + b * block_step; in windowed table t, 32 * (t + 1) more.
inline PlannedSequence planned_sequence(std::uint64_t number, std::int32_t prompt_length, std::int32_t output_length,
                                        BlockId first_block = 0, BlockId block_step = 1) {
  PlannedSequence sequence;
  sequence.number = number;
  sequence.prompt_length = prompt_length;
  std::uint64_t state = number;
  for (std::int32_t i = 0; i < prompt_length + output_length; ++i) {
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    sequence.history.push_back(static_cast<TokenId>(3 + (state >> 33) % 500));
    if (i % 16 == 0) sequence.blocks.push_back(first_block + i / 16 * block_step);
  }
  for (BlockId table = 1; table <= 8; ++table) {
    auto& windowed = sequence.windows.emplace_back(sequence.blocks);
    for (BlockId& block : windowed) block += 32 * table;
  }
  sequence.params.temperature = 0;
  sequence.params.logprobs = 3;
  return sequence;
}

// Rows [start, start + count) of a sequence.
struct PlannedRows {
  const PlannedSequence* sequence = nullptr;
  std::int32_t start = 0, count = 0;
};

// Samples where the rows reach the end of the prompt or go beyond it, as if what comes then were not known yet.
inline StepPlan plan_of(const std::vector<PlannedRows>& rows) {
  StepPlan plan;
  for (const auto& [sequence, start, count] : rows) {
    SequencePlan part;
    part.sequence = sequence->number;
    part.start = start;
    part.count = count;
    part.sample = start + count >= sequence->prompt_length;
    part.prompt_length = sequence->prompt_length;
    const std::size_t known = static_cast<std::size_t>(part.sample ? start + count : sequence->prompt_length);
    part.history = std::span(sequence->history).first(known);
    part.block_table = std::span(sequence->blocks).first((static_cast<std::size_t>(start + count) + 15) / 16);
    part.window_tables = sequence->windows;
    part.choice = sequence->choice;
    part.params = &sequence->params;
    part.prompt_logprobs = sequence->params.prompt_logprobs.has_value() && start < sequence->prompt_length;
    part.banned = sequence->banned;
    plan.rows += count;
    plan.sequences.push_back(part);
  }
  return plan;
}

}  // namespace chorus

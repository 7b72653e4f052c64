// Step plans as they go from a replica's engine to its workers, and results on their way back.
//
// A plan message holds only what changed: a worker keeps each sequence's tokens, blocks and parameters until the plan
// says that it ended. A decode step costs about 40 bytes per sequence. Encoder and decoder are a pair: every message of
// the one goes to the other, in order.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/result.h"
#include "net/wire.h"
#include "sched/step_plan.h"

namespace chorus {

// Plans hold everything a step knows: the longest message that is taken, of a result too.
inline constexpr std::size_t plan_bytes_max = std::size_t{256} << 20;

class PlanEncoder {
 public:
  // The message, valid until the next call.
  const std::string& encode(const StepPlan& plan);

 private:
  struct Known {
    std::size_t history = 0;  // tokens that were sent
    std::vector<BlockId> blocks;
    std::vector<std::vector<BlockId>> window_blocks;
    bool banned = false;
  };
  void encode_sequence(const SequencePlan& sequence);
  void encode_table(std::span<const BlockId> table, std::vector<BlockId>* known);

  WireWriter wire_;
  std::unordered_map<std::uint64_t, Known> known_;
};

// What a worker can compute: a plan that asks for more is refused before anything is read or written by its numbers.
struct PlanLimits {
  std::int32_t vocab_size = INT32_MAX;
  std::int32_t kv_blocks = INT32_MAX;  // of the whole replica
  std::int32_t block_size = 16;
  std::int32_t window_tables = 0;
};

class PlanDecoder {
 public:
  explicit PlanDecoder(const PlanLimits& limits) : limits_(limits) {}
  // The plan, valid until the next call. Errors: the message is no continuation of what came before.
  Result<const StepPlan*> decode(std::string_view message);

 private:
  struct Held {
    std::vector<TokenId> history;
    std::vector<BlockId> blocks;
    std::vector<std::vector<BlockId>> window_blocks;
    std::vector<TokenId> banned;
    SamplingParams params;
    std::int32_t prompt_length = 0;
    std::uint32_t choice = 0;
    std::uint64_t plan = 0;  // the number of the last plan that named it
  };
  void decode_sequence(WireReader* wire);
  void decode_table(WireReader* wire, std::vector<BlockId>* held) const;
  void check(const SequencePlan& sequence, const Held& held, WireReader* wire) const;

  PlanLimits limits_;
  std::uint64_t plan_number_ = 0;
  std::unordered_map<std::uint64_t, Held> held_;
  StepPlan plan_;
};

std::string encode_result(const StepResult& result);
Result<void> decode_result(std::string_view message, StepResult* result);

// An upper bound of encode_result() for this plan, in bytes.
std::size_t result_bytes_max(const StepPlan& plan);

}  // namespace chorus

#include "frontend/front_door.h"

#include "cluster/partition/assignment.h"

namespace chorus {
namespace {

// The finalizer of SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014, section 4).
std::uint64_t mix(std::uint64_t value) {
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9U;
  value = (value ^ (value >> 27)) * 0x94d049bb133111ebU;
  return value ^ (value >> 31);
}

// An engine answers with one message a step, which has a limit of its own (net/).
constexpr std::uint64_t prompt_logprobs_max = 2'000'000;

}  // namespace

std::uint64_t seed_for(std::uint64_t engine_seed, std::span<const TokenId> prompt) {
  std::uint64_t hash = mix(engine_seed + 0x9e3779b97f4a7c15U);
  for (const TokenId token : prompt) hash = mix(hash ^ (static_cast<std::uint32_t>(token) + 0x9e3779b97f4a7c15U));
  return hash;
}

Result<void> check_prompt(std::span<const TokenId> prompt, const SamplingParams& params, const EngineConfig& config,
                          const ModelConfig& model) {
  if (prompt.empty()) return fail(ErrorCode::invalid_argument, "the prompt is empty: give at least one token");
  const int limit = config.max_model_len > 0 ? config.max_model_len : model.max_position_embeddings;
  if (prompt.size() >= static_cast<std::size_t>(limit)) {
    return fail(ErrorCode::invalid_argument,
                "the prompt has {} tokens, and max_model_len {} leaves no room for an output: shorten it or raise "
                "--max-model-len",
                prompt.size(), limit);
  }
  if (params.min_tokens > params.max_tokens) {
    return fail(ErrorCode::invalid_argument, "min_tokens {} is above max_tokens {}: lower it", params.min_tokens,
                params.max_tokens);
  }
  for (const auto& [token, bias] : params.logit_bias) {
    if (token < 0 || token >= model.vocab_size) {
      return fail(ErrorCode::invalid_argument, "logit_bias has id {}: the vocabulary has ids 0 to {}", token,
                  model.vocab_size - 1);
    }
  }
  const std::uint64_t scored = prompt.size() * (std::uint64_t{params.prompt_logprobs.value_or(0)} + 1);
  if (params.prompt_logprobs && scored > prompt_logprobs_max) {
    return fail(
        ErrorCode::invalid_argument,
        "prompt_logprobs of {} tokens a position over {} positions are {} entries, at most {} come back: ask for fewer",
        *params.prompt_logprobs, prompt.size(), scored, prompt_logprobs_max);
  }
  for (std::size_t i = 0; i < prompt.size(); ++i) {
    if (prompt[i] < 0 || prompt[i] >= model.vocab_size) {
      return fail(ErrorCode::invalid_argument, "prompt token {} is id {}: the vocabulary has ids 0 to {}", i, prompt[i],
                  model.vocab_size - 1);
    }
  }
  return {};
}

std::vector<std::optional<int>> ranks_for(const std::vector<GenerationInput>& inputs, const EngineConfig& config) {
  std::vector<std::int32_t> priorities;
  for (const GenerationInput& input : inputs) priorities.push_back(input.priority);
  std::vector<std::optional<int>> ranks(inputs.size());
  if (config.assignment != AssignmentName::dynamic) {
    const int count = config.parallel.data_parallel_size;
    Assignment assignment({config.assignment, count, 0}, inputs.size(), priorities);
    for (int rank = 0; rank < count; ++rank) {
      while (const auto index = assignment.next_for(rank, 0)) ranks[*index] = rank;
    }
  }
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    if (inputs[i].dp_rank) ranks[i] = inputs[i].dp_rank;
  }
  return ranks;
}

std::vector<std::size_t> submission_order(const std::vector<std::optional<int>>& ranks) {
  std::map<int, std::size_t> seen;  // -1: no rank
  std::vector<std::pair<std::size_t, std::size_t>> turns;
  for (std::size_t i = 0; i < ranks.size(); ++i) turns.emplace_back(seen[ranks[i].value_or(-1)]++, i);
  std::sort(turns.begin(), turns.end());
  std::vector<std::size_t> order;
  for (const auto& [turn, index] : turns) order.push_back(index);
  return order;
}

}  // namespace chorus

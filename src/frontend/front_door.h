// What a request gets, and is asked, before it is queued: a seed, a check of its prompt, a rank.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/result.h"
#include "config/engine_config.h"
#include "config/model_config.h"
#include "frontend/text_generator.h"
#include "request/request.h"

namespace chorus {

// The seed of a request that brings none: a function of the engine's seed and the prompt, so that neither the order of
// the input, nor the command, nor a resumed run changes it. Equal prompts get equal seeds: who wants several samples
// asks for n > 1 or gives seeds.
std::uint64_t seed_for(std::uint64_t engine_seed, std::span<const TokenId> prompt);

// Errors of one row: empty prompt, token id out of range, longer than the model takes, more logprobs than one message
// holds.
Result<void> check_prompt(std::span<const TokenId> prompt, const SamplingParams& params, const EngineConfig& config,
                          const ModelConfig& model);

// The data-parallel rank of each input: its own, or by config.assignment; nullopt: whichever is least loaded.
std::vector<std::optional<int>> ranks_for(const std::vector<GenerationInput>& inputs, const EngineConfig& config);

// The order in which inputs are submitted: each rank's first, then each rank's second, ..., so that a bounded number in
// flight keeps every rank busy; inputs without a rank keep their places among themselves.
std::vector<std::size_t> submission_order(const std::vector<std::optional<int>>& ranks);

}  // namespace chorus

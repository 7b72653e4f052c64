// What a request gets, and is asked, before it is queued: a seed, a check of its prompt, a rank.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <vector>

#include "base/result.h"
#include "config/engine_config.h"
#include "config/model_config.h"
#include "frontend/text_generator.h"
#include "sched/request.h"

namespace chorus {

// Seeds for requests that bring none. A function of the engine's seed, the prompt, and how many requests with this prompt came
// before: input in another order, or through another command, gets the same seeds, and equal prompts still differ.
class SeedGiver {
 public:
  explicit SeedGiver(std::uint64_t engine_seed) : engine_seed_(engine_seed) {}
  std::uint64_t seed_for(std::span<const TokenId> prompt);

 private:
  std::uint64_t engine_seed_;
  std::map<std::uint64_t, std::uint64_t> occurrences_;  // by hash of the prompt
};

// Errors of one row: empty prompt, token id out of range, longer than the model takes.
Result<void> check_prompt(std::span<const TokenId> prompt, const EngineConfig& config, const ModelConfig& model);

// The data-parallel rank of each input: its own, or by config.assignment; nullopt: whichever is least loaded.
std::vector<std::optional<int>> ranks_for(const std::vector<GenerationInput>& inputs, const EngineConfig& config);

}  // namespace chorus

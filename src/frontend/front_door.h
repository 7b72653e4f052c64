// What a request is asked before it is queued.
#pragma once

#include <span>

#include "base/result.h"
#include "config/engine_config.h"
#include "config/model_config.h"
#include "request/request.h"

namespace chorus {

// Errors of one row: empty prompt, token id out of range, longer than the model takes, more logprobs than one message
// holds.
Result<void> check_prompt(std::span<const TokenId> prompt, const SamplingParams& params, const EngineConfig& config,
                          const ModelConfig& model);

}  // namespace chorus

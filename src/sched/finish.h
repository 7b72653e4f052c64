// When a choice ends. Pure functions of the request and its output, so that a resumed choice ends where it would have
// ended.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "request/request.h"

namespace chorus {

struct Finish {
  FinishReason reason = FinishReason::none;
  std::optional<TokenId> stop_token;  // the EOS or stop id that ended it
  bool operator==(const Finish&) const = default;
};

// Output tokens a choice may have: max_tokens, clamped so that prompt and output stay within max_model_len.
std::int64_t output_limit(const SamplingParams& params, std::int64_t prompt_length, std::int32_t max_model_len);

// `output` is everything up to and including the newest token. EOS and stop ids win over length. Below min_tokens
// nothing but the length ends a choice.
Finish finish_check(const SamplingParams& params, std::span<const TokenId> eos_token_ids,
                    std::span<const TokenId> output, std::int64_t output_limit);

// What may not be sampled while output.size() < min_tokens: EOS and stop ids, ascending. Empty when min_tokens is 0.
std::vector<TokenId> banned_below_min_tokens(const SamplingParams& params, std::span<const TokenId> eos_token_ids);

}  // namespace chorus

#include "sched/finish.h"

#include <algorithm>

namespace chorus {

std::int64_t output_limit(const SamplingParams& params, std::int64_t prompt_length, std::int32_t max_model_len) {
  return std::min<std::int64_t>(params.max_tokens, max_model_len - prompt_length);
}

Finish finish_check(const SamplingParams& params, std::span<const TokenId> eos_token_ids,
                    std::span<const TokenId> output, std::int64_t output_limit) {
  if (output.empty()) return {};
  const TokenId newest = output.back();
  const auto is_newest = [newest](TokenId token) { return token == newest; };
  // A token below min_tokens cannot be one of these: the executor never samples a banned one. Emitted tokens that were
  // handed in are held to the same rule.
  if (output.size() > params.min_tokens) {
    const bool is_eos = !params.ignore_eos && std::ranges::any_of(eos_token_ids, is_newest);
    if (is_eos || std::ranges::any_of(params.stop_token_ids, is_newest)) return {FinishReason::stop, newest};
  }
  if (static_cast<std::int64_t>(output.size()) >= output_limit) return {FinishReason::length, std::nullopt};
  return {};
}

std::vector<TokenId> banned_below_min_tokens(const SamplingParams& params, std::span<const TokenId> eos_token_ids) {
  if (params.min_tokens == 0) return {};
  std::vector<TokenId> banned(eos_token_ids.begin(), eos_token_ids.end());
  banned.insert(banned.end(), params.stop_token_ids.begin(), params.stop_token_ids.end());
  std::ranges::sort(banned);
  banned.erase(std::unique(banned.begin(), banned.end()), banned.end());
  return banned;
}

}  // namespace chorus

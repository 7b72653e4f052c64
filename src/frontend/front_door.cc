#include "frontend/front_door.h"

namespace chorus {
namespace {

// An engine answers with one message a step, which has a limit of its own (net/).
constexpr std::uint64_t prompt_logprobs_max = 2'000'000;

Result<void> check_ids(const char* name, std::span<const TokenId> ids, int vocab_size) {
  for (const TokenId id : ids) {
    if (id >= 0 && id < vocab_size) continue;
    return fail(ErrorCode::invalid_argument, "{} has id {}: the vocabulary has ids 0 to {}", name, id, vocab_size - 1);
  }
  return {};
}

}  // namespace

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
    CHORUS_TRY_VOID(check_ids("logit_bias", {&token, 1}, model.vocab_size));
  }
  CHORUS_TRY_VOID(check_ids("allowed_token_ids", params.allowed_token_ids, model.vocab_size));
  CHORUS_TRY_VOID(check_ids("logprob_token_ids", params.logprob_token_ids, model.vocab_size));
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

}  // namespace chorus

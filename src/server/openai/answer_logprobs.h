// Logprobs as the two endpoints show them.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "json/json.h"
#include "request/request.h"
#include "server/openai/token_label.h"

namespace chorus {

// Of a prompt's tokens the first has none: nothing predicts it.
struct ScoredToken {
  TokenId token = 0;
  const PositionLogprobs* logprobs = nullptr;
};

// {"tokens", "token_logprobs", "top_logprobs", "text_offset"}: one entry a token; offsets in characters, from
// `text_offset` on.
void write_completion_logprobs(JsonWriter& json, std::span<const ScoredToken> tokens, std::uint64_t text_offset,
                               const TokenLabel& text);
// {"content": [{"token", "logprob", "bytes", "top_logprobs"}], "refusal": null}.
void write_chat_logprobs(JsonWriter& json, std::span<const PositionLogprobs> positions, const TokenLabel& text);
// [null, {"ID": {"logprob", "rank", "decoded_token"}, ..}, ..]: vLLM's prompt_logprobs. The rank of a token that is not
// among the most likely ones is not known here: null.
void write_prompt_logprobs(JsonWriter& json, std::span<const PositionLogprobs> positions, const TokenLabel& text);

std::uint64_t characters_of(std::string_view utf8);

}  // namespace chorus

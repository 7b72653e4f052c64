// What the endpoints' requests have in common.
#pragma once

#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "server/openai/generation_request.h"

namespace chorus {

inline constexpr std::int64_t top_logprobs_max = 20;  // vLLM's --max-logprobs, OpenAI's top_logprobs

// "model", the sampling options, streaming, and what is refused; all but the prompt. `own`: the sampling options' names
// that the endpoint reads itself, since it means something else by them.
GenerationInput read_common(Fields& fields, const ServedModel& model, GenerationRequest* request,
                            std::initializer_list<std::string_view> own, std::optional<std::string_view> rank);

// Its "model" is one of ours, or not given.
void check_model(Fields& fields, const ServedModel& model);
// Token ids; nullopt: the list has something else.
std::optional<std::vector<TokenId>> token_ids_of(Fields& fields, const char* name, const Json& list);
// The prompt of a chat's "messages"; nullopt: they are wrong, or the template fails.
std::optional<std::string> render_chat(Fields& fields, const ServedModel& model);

}  // namespace chorus

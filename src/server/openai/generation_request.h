// What /v1/completions and /v1/chat/completions ask for, from their JSON: the fields of OpenAI's API and of vLLM 0.33
// (entrypoints/openai/completion/protocol.py, chat_completion/protocol.py) as far as Chorus has them. A field that
// either of them has and Chorus has not is an error that names it; one that neither has is ignored, as clients need.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "frontend/chat_format.h"
#include "frontend/text_engine.h"
#include "server/openai/fields.h"
#include "server/openai/output_parser.h"

namespace chorus {

// What a request is read against.
struct ServedModel {
  std::vector<std::string> names;  // the first is the one that answers say
  GenerationOptions defaults;
  bool chat_fills_context = true;  // until max_tokens is given: where the model has no max_new_tokens of its own
  const ChatFormat* chat = nullptr;
  int max_model_len = 0;
  bool by_priority = false;                    // the scheduling policy
  const ToolCallFormat* tool_calls = nullptr;  // of tool_choice "auto"; null: it is refused
  std::optional<ReasoningStyle> reasoning;     // how a chat's thoughts are told from its answer; nullopt: they are not
  // The tokenizer has a marker of either as a special token, which a text leaves out.
  bool tool_markers_are_special = false, think_markers_are_special = false;
};

struct GenerationRequest {
  enum class Kind : std::uint8_t { completion, chat };
  Kind kind = Kind::completion;
  std::vector<GenerationInput> inputs;  // one a prompt; each has options.params.n choices
  std::optional<std::string> request_id;
  std::size_t unknown_fields = 0;

  bool stream = false;
  bool include_usage = false;           // a last chunk with it
  bool continuous_usage_stats = false;  // each chunk with it

  bool echo = false;             // the prompt before each text
  bool prompt_alone = false;     // max_tokens 0: what was generated is not shown
  bool logprobs = false;         // of the output, and with echo of the prompt
  bool prompt_logprobs = false;  // in a separate field
  OutputRules output;            // of a chat
  bool return_token_ids = false;
  bool return_tokens_as_token_ids = false;  // "token_id:15" where a token's text would be
  bool prompt_tokens_details = false;       // in `usage`; the server's wish

  std::uint32_t choices_per_prompt() const { return inputs.front().options.params.n; }
};

// `data_parallel_rank`: the header X-data-parallel-rank as it came; one that is no whole number is ignored, as in vLLM.
Parsed<GenerationRequest> parse_completion(const Json& body, const ServedModel& model,
                                           std::optional<std::string_view> data_parallel_rank = {});
Parsed<GenerationRequest> parse_chat(const Json& body, const ServedModel& model,
                                     std::optional<std::string_view> data_parallel_rank = {});

}  // namespace chorus

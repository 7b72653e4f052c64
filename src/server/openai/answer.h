// What a request has said, and the JSON that tells it: the responses and stream chunks of /v1/completions and
// /v1/chat/completions (OpenAI's schema, with vLLM 0.33's fields beside it). Pure functions.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "frontend/text_engine.h"
#include "json/json.h"
#include "server/openai/answer_calls.h"
#include "server/openai/generation_request.h"
#include "server/openai/output_delta.h"
#include "server/openai/token_label.h"

namespace chorus {

// What one choice has said since it was last told of: several deltas are one part. A stream that is read slowly has
// fewer and longer ones.
struct AnswerPart {
  std::string text;                  // of a chat: its answer
  std::string reasoning;             // of a chat
  std::vector<ToolCallDelta> calls;  // of a chat
  bool ends_with_calls = false;      // with the finish: the choice has made calls
  std::vector<TokenId> token_ids;
  std::vector<PositionLogprobs> logprobs;
  FinishReason finish = FinishReason::none;
  std::optional<TokenId> stop_token;
  std::optional<std::string> stop_string;

  void append(TextDelta&& delta);
  void append(OutputDelta&& delta);  // beside a TextDelta without a text
  AnswerPart take_end();             // its finish alone, which is not here any more
  bool says_nothing() const { return text.empty() && reasoning.empty() && calls.empty(); }
  bool is_empty() const { return says_nothing() && token_ids.empty() && finish == FinishReason::none; }
};

// A prompt, where its answer shows it.
struct AnswerPrompt {
  UnderstoodPrompt prompt;
  std::vector<PositionLogprobs> logprobs;  // from the second token on
};

struct Usage {
  std::uint64_t prompt_tokens = 0, completion_tokens = 0;
  std::optional<std::uint64_t> cached_tokens = {};  // of the prompt, where it is to be told
  // Generated while thoughts were open, their markers aside where these are a token each; where thoughts are told
  // apart.
  std::optional<std::uint64_t> reasoning_tokens = {};
};

// What every object of an answer says.
struct AnswerHead {
  std::string id;              // "cmpl-..", "chatcmpl-.."
  std::int64_t created_s = 0;  // since 1970
  std::string model;
  CallIds call_ids;
};
std::string answer_id(GenerationRequest::Kind kind, const std::string& request_id);

// A choice as it is told: `prompt` where it has to be shown with it, and so with its first part alone.
struct AnswerChoice {
  std::uint32_t index = 0;
  const AnswerPart* part = nullptr;
  const AnswerPrompt* prompt = nullptr;
  std::uint64_t text_offset = 0;  // of its first token: of a completion's logprobs
};

class AnswerWriter {
 public:
  // `request` outlives this.
  AnswerWriter(AnswerHead head, const GenerationRequest& request, TokenLabel token_label)
      : head_(std::move(head)), request_(&request), token_label_(token_label) {}

  const std::string& id() const { return head_.id; }
  // The whole answer, choices by index.
  std::string whole(std::span<const AnswerChoice> choices, const Usage& usage) const;
  // Of a stream. The first chunk of a chat's choice says the role; a completion has none.
  std::optional<std::string> opening(std::uint32_t index) const;
  std::string chunk(const AnswerChoice& choice, const std::optional<Usage>& usage) const;
  std::string usage_chunk(const Usage& usage) const;
  // Where the next chunk's first token begins, in characters.
  std::uint64_t text_offset_after(const AnswerChoice& choice) const;

 private:
  void write_head(JsonWriter& json, const char* object) const;
  void write_choice(JsonWriter& json, const char* holder, const AnswerChoice& choice) const;
  const char* chunk_object() const;

  AnswerHead head_;
  const GenerationRequest* request_;
  TokenLabel token_label_;
};

// "data: JSON" and an empty line.
std::string server_sent_event(std::string_view json);

}  // namespace chorus

#include "server/openai/answer.h"

#include <iterator>
#include <utility>

#include "json/json.h"
#include "server/openai/answer_logprobs.h"

namespace chorus {
namespace {

using Kind = GenerationRequest::Kind;

void write_ids(JsonWriter& json, std::span<const TokenId> ids) {
  json.begin_array();
  for (const TokenId id : ids) json.value(id);
  json.end_array();
}

void write_finish(JsonWriter& json, const AnswerPart& part) {
  json.key("finish_reason");
  if (part.finish == FinishReason::none) {
    json.null();
  } else if (part.finish == FinishReason::stop && part.ends_with_calls) {
    json.value("tool_calls");  // an output that was cut off says so
  } else {
    json.value(name_of(part.finish));
  }
  json.key("stop_reason");
  if (part.stop_string) {
    json.value(*part.stop_string);
  } else if (part.stop_token) {
    json.value(*part.stop_token);
  } else {
    json.null();
  }
}

void write_usage(JsonWriter& json, const Usage& usage) {
  json.key("usage").begin_object();
  json.key("prompt_tokens").value(usage.prompt_tokens);
  json.key("total_tokens").value(usage.prompt_tokens + usage.completion_tokens);
  json.key("completion_tokens").value(usage.completion_tokens);
  if (usage.reasoning_tokens) {
    json.key("completion_tokens_details").begin_object();
    json.key("reasoning_tokens").value(*usage.reasoning_tokens).end_object();
  }
  if (usage.cached_tokens) {
    json.key("prompt_tokens_details").begin_object().key("cached_tokens").value(*usage.cached_tokens).end_object();
  }
  json.end_object();
}

// What vLLM adds to a choice.
void write_extras(JsonWriter& json, const AnswerChoice& choice, const GenerationRequest& request,
                  const TokenLabel& text) {
  if (request.return_token_ids) {
    json.key("token_ids");
    write_ids(json, request.prompt_alone ? std::span<const TokenId>() : choice.part->token_ids);
  }
  if (choice.prompt == nullptr) return;
  if (request.return_token_ids) {
    json.key("prompt_token_ids");
    write_ids(json, choice.prompt->prompt.token_ids);
  }
  if (request.prompt_logprobs) {
    json.key("prompt_logprobs");
    write_prompt_logprobs(json, choice.prompt->logprobs, text);
  }
}

// The tokens of the prompt where it is echoed, then those of the output.
std::vector<ScoredToken> scored_tokens(const AnswerChoice& choice, const GenerationRequest& request) {
  std::vector<ScoredToken> tokens;
  if (request.echo && choice.prompt != nullptr) {
    const AnswerPrompt& prompt = *choice.prompt;
    for (std::size_t i = 0; i < prompt.prompt.token_ids.size(); ++i) {
      const bool scored = i > 0 && i <= prompt.logprobs.size();
      tokens.push_back({prompt.prompt.token_ids[i], scored ? &prompt.logprobs[i - 1] : nullptr});
    }
  }
  if (request.prompt_alone) return tokens;
  for (const PositionLogprobs& position : choice.part->logprobs) tokens.push_back({position.chosen.token, &position});
  return tokens;
}

void write_completion_choice(JsonWriter& json, const AnswerChoice& choice, const GenerationRequest& request,
                             const TokenLabel& text) {
  std::string shown = request.echo && choice.prompt != nullptr ? choice.prompt->prompt.text : std::string();
  if (!request.prompt_alone) shown += choice.part->text;
  json.begin_object().key("index").value(choice.index).key("text").value(shown).key("logprobs");
  if (request.logprobs) {
    write_completion_logprobs(json, scored_tokens(choice, request), choice.text_offset, text);
  } else {
    json.null();
  }
  write_finish(json, *choice.part);
  write_extras(json, choice, request, text);
  json.end_object();
}

void write_message(JsonWriter& json, const AnswerChoice& choice, const CallIds& ids) {
  const AnswerPart& part = *choice.part;
  json.begin_object().key("role").value("assistant").key("content");
  if (part.text.empty() && !part.says_nothing()) {
    json.null();
  } else {
    json.value(part.text);
  }
  json.key("refusal").null();
  if (!part.reasoning.empty()) json.key("reasoning").value(part.reasoning);
  if (!part.calls.empty()) {
    json.key("tool_calls");
    write_tool_calls(json, part.calls, ids, choice.index);
  }
  json.end_object();
}

void write_delta(JsonWriter& json, const AnswerChoice& choice, const CallIds& ids) {
  const AnswerPart& part = *choice.part;
  json.begin_object();
  if (!part.reasoning.empty()) json.key("reasoning").value(part.reasoning);
  if (!part.text.empty() || part.says_nothing()) json.key("content").value(part.text);
  if (!part.calls.empty()) {
    json.key("tool_calls");
    write_tool_call_deltas(json, part.calls, ids, choice.index);
  }
  json.end_object();
}

// `holder`: "message" or "delta".
void write_chat_choice(JsonWriter& json, const char* holder, const AnswerChoice& choice,
                       const GenerationRequest& request, const TokenLabel& text, const CallIds& ids) {
  json.begin_object().key("index").value(choice.index).key(holder);
  if (std::string_view(holder) == "message") {
    write_message(json, choice, ids);
  } else {
    write_delta(json, choice, ids);
  }
  json.key("logprobs");
  if (request.logprobs) {
    write_chat_logprobs(json, choice.part->logprobs, text);
  } else {
    json.null();
  }
  write_finish(json, *choice.part);
  write_extras(json, choice, request, text);
  json.end_object();
}

}  // namespace

void AnswerPart::append(TextDelta&& delta) {
  text += delta.text;
  if (delta.token) token_ids.push_back(*delta.token);
  if (delta.logprobs) logprobs.push_back(std::move(*delta.logprobs));
  if (delta.finish == FinishReason::none) return;
  finish = delta.finish;
  stop_token = delta.stop_token;
  stop_string = std::move(delta.stop_string);
}

void AnswerPart::append(OutputDelta&& delta) {
  OutputDelta all{std::move(reasoning), std::move(text), std::move(calls)};
  all.append(std::move(delta));
  reasoning = std::move(all.reasoning);
  text = std::move(all.content);
  calls = std::move(all.calls);
}

AnswerPart AnswerPart::take_end() {
  AnswerPart end;
  end.finish = std::exchange(finish, FinishReason::none);
  end.stop_token = std::exchange(stop_token, std::nullopt);
  end.stop_string = std::exchange(stop_string, std::nullopt);
  end.ends_with_calls = ends_with_calls;
  return end;
}

std::string answer_id(Kind kind, const std::string& request_id) {
  return (kind == Kind::chat ? "chatcmpl-" : "cmpl-") + request_id;
}

void AnswerWriter::write_head(JsonWriter& json, const char* object) const {
  json.key("id").value(head_.id).key("object").value(object);
  json.key("created").value(head_.created_s).key("model").value(head_.model);
}

void AnswerWriter::write_choice(JsonWriter& json, const char* holder, const AnswerChoice& choice) const {
  if (request_->kind == Kind::chat) {
    return write_chat_choice(json, holder, choice, *request_, token_label_, head_.call_ids);
  }
  write_completion_choice(json, choice, *request_, token_label_);
}

const char* AnswerWriter::chunk_object() const {
  return request_->kind == Kind::chat ? "chat.completion.chunk" : "text_completion";
}

std::string AnswerWriter::whole(std::span<const AnswerChoice> choices, const Usage& usage) const {
  std::string text;
  JsonWriter json(&text);
  json.begin_object();
  write_head(json, request_->kind == Kind::chat ? "chat.completion" : "text_completion");
  json.key("choices").begin_array();
  for (const AnswerChoice& choice : choices) write_choice(json, "message", choice);
  json.end_array();
  write_usage(json, usage);
  json.end_object();
  return text;
}

std::optional<std::string> AnswerWriter::opening(std::uint32_t index) const {
  if (request_->kind != Kind::chat) return std::nullopt;
  std::string text;
  JsonWriter json(&text);
  json.begin_object();
  write_head(json, chunk_object());
  json.key("choices").begin_array().begin_object().key("index").value(index);
  json.key("delta").begin_object().key("role").value("assistant").key("content").value("").end_object();
  json.key("logprobs").null().key("finish_reason").null().end_object().end_array().end_object();
  return text;
}

std::string AnswerWriter::chunk(const AnswerChoice& choice, const std::optional<Usage>& usage) const {
  std::string text;
  JsonWriter json(&text);
  json.begin_object();
  write_head(json, chunk_object());
  json.key("choices").begin_array();
  write_choice(json, "delta", choice);
  json.end_array();
  if (usage) write_usage(json, *usage);
  json.end_object();
  return text;
}

std::uint64_t AnswerWriter::text_offset_after(const AnswerChoice& choice) const {
  std::uint64_t offset = choice.text_offset;
  if (!request_->logprobs || request_->kind == Kind::chat) return offset;
  for (const ScoredToken& one : scored_tokens(choice, *request_)) offset += characters_of(token_label_(one.token));
  return offset;
}

std::string AnswerWriter::usage_chunk(const Usage& usage) const {
  std::string text;
  JsonWriter json(&text);
  json.begin_object();
  write_head(json, chunk_object());
  json.key("choices").begin_array().end_array();
  write_usage(json, usage);
  json.end_object();
  return text;
}

std::string server_sent_event(std::string_view json) {
  return fmt::format("data: {}\n\n", json);
}

}  // namespace chorus

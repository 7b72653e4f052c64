#include "server/openai/answer_logprobs.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

namespace chorus {
namespace {

// JSON has no infinities: vLLM's floor.
float shown(float logprob) {
  return std::max(logprob, -9999.0F);
}

// The chosen token first unless it is among the others, most likely first.
std::vector<TokenLogprob> with_chosen(const PositionLogprobs& position) {
  std::vector<TokenLogprob> all = position.top;
  const bool among =
      std::ranges::any_of(all, [&](const TokenLogprob& one) { return one.token == position.chosen.token; });
  if (!among) all.insert(all.begin(), position.chosen);
  return all;
}

// Several tokens may have the same text (parts of characters): the most likely one keeps it.
void write_by_text(JsonWriter& json, const PositionLogprobs& position, const TokenLabel& text) {
  std::vector<std::string> told;
  json.begin_object();
  for (const TokenLogprob& one : with_chosen(position)) {
    std::string name = text(one.token);
    if (std::ranges::find(told, name) != told.end()) continue;
    json.key(name).value(shown(one.logprob));
    told.push_back(std::move(name));
  }
  json.end_object();
}

void write_token(JsonWriter& json, const TokenLogprob& token, const TokenLabel& text) {
  const std::string name = text(token.token);
  json.key("token").value(name).key("logprob").value(shown(token.logprob)).key("bytes").begin_array();
  for (const char byte : name) json.value(static_cast<int>(static_cast<unsigned char>(byte)));
  json.end_array();
}

}  // namespace

std::uint64_t characters_of(std::string_view utf8) {
  return static_cast<std::uint64_t>(
      std::ranges::count_if(utf8, [](char byte) { return (static_cast<unsigned char>(byte) & 0xc0U) != 0x80U; }));
}

void write_completion_logprobs(JsonWriter& json, std::span<const ScoredToken> tokens, std::uint64_t text_offset,
                               const TokenLabel& text) {
  json.begin_object().key("tokens").begin_array();
  for (const ScoredToken& one : tokens) json.value(text(one.token));
  json.end_array().key("token_logprobs").begin_array();
  for (const ScoredToken& one : tokens) {
    if (one.logprobs == nullptr) {
      json.null();
    } else {
      json.value(shown(one.logprobs->chosen.logprob));
    }
  }
  json.end_array().key("top_logprobs").begin_array();
  for (const ScoredToken& one : tokens) {
    if (one.logprobs == nullptr) {
      json.null();
    } else {
      write_by_text(json, *one.logprobs, text);
    }
  }
  json.end_array().key("text_offset").begin_array();
  for (const ScoredToken& one : tokens) {
    json.value(text_offset);
    text_offset += characters_of(text(one.token));
  }
  json.end_array().end_object();
}

void write_chat_logprobs(JsonWriter& json, std::span<const PositionLogprobs> positions, const TokenLabel& text) {
  json.begin_object().key("content").begin_array();
  for (const PositionLogprobs& position : positions) {
    json.begin_object();
    write_token(json, position.chosen, text);
    json.key("top_logprobs").begin_array();
    for (const TokenLogprob& one : position.top) {
      json.begin_object();
      write_token(json, one, text);
      json.end_object();
    }
    json.end_array().end_object();
  }
  json.end_array().key("refusal").null().end_object();
}

void write_prompt_logprobs(JsonWriter& json, std::span<const PositionLogprobs> positions, const TokenLabel& text) {
  json.begin_array().null();
  for (const PositionLogprobs& position : positions) {
    json.begin_object();
    for (const TokenLogprob& one : with_chosen(position)) {
      const auto at = std::ranges::find(position.top, one.token, &TokenLogprob::token);
      json.key(fmt::format("{}", one.token)).begin_object().key("logprob").value(shown(one.logprob)).key("rank");
      if (at == position.top.end()) {
        json.null();
      } else {
        json.value(static_cast<std::int64_t>(at - position.top.begin()) + 1);
      }
      json.key("decoded_token").value(text(one.token)).end_object();
    }
    json.end_object();
  }
  json.end_array();
}

}  // namespace chorus

// What is asked of an engine: token ids and sampling parameters, nothing of text. A plain value that crosses the wire.
#pragma once

#include <fmt/format.h>

#include <compare>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/fields.h"

namespace chorus {

using TokenId = std::int32_t;

// A front end. Numbers are given by the parent and never used again.
using ClientId = std::uint32_t;

// Whose request it is, and its number there. A client numbers its requests from 1 and never gives a number twice, so
// that what an engine still says of a request that has ended is told from all others.
struct RequestId {
  ClientId client = 0;
  std::uint64_t number = 0;
  auto operator<=>(const RequestId&) const = default;  // NOLINT(modernize-use-nullptr): clang-tidy 14 misreads it
  static constexpr auto fields(auto& self, auto&& visit) { return visit(self.client, self.number); }
};

// Defaults are vLLM's. The output is a function of these, the prompt and the model alone (design.md section 1).
struct SamplingParams {
  std::uint32_t n = 1;              // choices, 1..128
  double temperature = 1.0;         // 0: greedy
  double top_p = 1.0;               // (0, 1]
  std::int32_t top_k = 0;           // 0 or -1: all
  double min_p = 0.0;               // [0, 1]
  double presence_penalty = 0.0;    // [-2, 2]
  double frequency_penalty = 0.0;   // [-2, 2]
  double repetition_penalty = 1.0;  // > 0, over prompt and output
  std::uint64_t seed = 0;           // always set: the front door gives one to a request without
  std::uint32_t max_tokens = 16;
  std::uint32_t min_tokens = 0;  // EOS and stop ids are masked until then
  bool ignore_eos = false;
  std::vector<TokenId> stop_token_ids;    // ascending
  std::optional<std::uint32_t> logprobs;  // top K beside the chosen token; 0: the chosen one alone
  std::optional<std::uint32_t> prompt_logprobs;
  std::vector<std::pair<TokenId, float>> logit_bias;  // ascending by token
  std::vector<TokenId> allowed_token_ids;             // nothing else is sampled; ascending; empty: all
  // None of these runs of tokens appears in the output: the last one of a run is not sampled behind the others.
  std::vector<std::vector<TokenId>> bad_words;
  // The tokens whose logprobs come in the place of the top K, in this order; with `logprobs` alone.
  std::vector<TokenId> logprob_token_ids;
  bool operator==(const SamplingParams&) const = default;
  static constexpr auto fields(auto& self, auto&& visit) {
    return visit(self.n, self.temperature, self.top_p, self.top_k, self.min_p, self.presence_penalty,
                 self.frequency_penalty, self.repetition_penalty, self.seed, self.max_tokens, self.min_tokens,
                 self.ignore_eos, self.stop_token_ids, self.logprobs, self.prompt_logprobs, self.logit_bias,
                 self.allowed_token_ids, self.bad_words, self.logprob_token_ids);
  }
};

struct TokenLogprob {
  TokenId token = 0;
  float logprob = 0;
  bool operator==(const TokenLogprob&) const = default;
  static constexpr auto fields(auto& self, auto&& visit) { return visit(self.token, self.logprob); }
};

// The logprob of a chosen (or prompt) token and the K most likely ones, most likely first, ties by lower id; or those
// of logprob_token_ids in its order. Logprobs are those of the raw logits (before penalties and temperature), as in
// vLLM's default.
struct PositionLogprobs {
  TokenLogprob chosen;
  std::vector<TokenLogprob> top;
  bool operator==(const PositionLogprobs&) const = default;
  static constexpr auto fields(auto& self, auto&& visit) { return visit(self.chosen, self.top); }
};

enum class FinishReason : std::uint8_t { none, stop, length, abort, error };
const char* name_of(FinishReason reason);
constexpr auto enumeration_of(FinishReason) {
  return Enumeration{"a finish reason", FinishReason::error};
}

// A choice that is to be computed: all of them for a new request, the unfinished ones with what they have emitted when
// a request goes on elsewhere.
struct ChoiceState {
  std::uint32_t index = 0;
  std::vector<TokenId> emitted;
  bool operator==(const ChoiceState&) const = default;
  static constexpr auto fields(auto& self, auto&& visit) { return visit(self.index, self.emitted); }
};

struct Request {
  RequestId id;
  std::vector<TokenId> prompt;
  SamplingParams params;
  std::int32_t priority = 0;          // lower runs first under the priority policy
  std::vector<ChoiceState> choices;   // empty: n fresh choices 0..n-1
  bool skip_prompt_logprobs = false;  // set on re-submission when they were already delivered
  std::string cache_salt;             // cached prefixes are shared with requests of the same salt alone
  bool operator==(const Request&) const = default;
  static constexpr auto fields(auto& self, auto&& visit) {
    return visit(self.id, self.prompt, self.params, self.priority, self.choices, self.skip_prompt_logprobs,
                 self.cache_salt);
  }
};

// How a choice's prompt was computed. What went on elsewhere has been computed twice, and is told twice.
struct PrefillReport {
  std::uint64_t cached_tokens = 0;  // the prefix cache had these
  std::uint64_t duration_us = 0;    // from the first step that took it to the one that gave its token
  bool operator==(const PrefillReport&) const = default;
  static constexpr auto fields(auto& self, auto&& visit) { return visit(self.cached_tokens, self.duration_us); }
};

// What an engine says of one choice of one request after a step. Tokens of a choice come in order, without gaps.
struct TokenEvent {
  RequestId request;
  std::uint32_t choice = 0;
  std::uint32_t position = 0;    // 0-based output position of `token`
  std::optional<TokenId> token;  // absent when only finish or prompt logprobs are told
  std::optional<PositionLogprobs> logprobs;
  // Of a request that asked: once, with choice 0's first token. Entry 0 (no prediction for the first token) is left
  // out.
  std::vector<PositionLogprobs> prompt_logprobs;
  FinishReason finish = FinishReason::none;
  std::optional<TokenId> stop_token;     // the EOS or stop id that ended it
  std::string error;                     // with FinishReason::error: what, limit, what next
  std::optional<PrefillReport> prefill;  // with the first token that this engine gives of the choice
  // How often the choice had to give up its KV blocks and wait again since its last event; absent: never.
  std::optional<std::uint32_t> preemptions;
  bool operator==(const TokenEvent&) const = default;
  static constexpr auto fields(auto& self, auto&& visit) {
    return visit(self.request, self.choice, self.position, self.token, self.logprobs, self.prompt_logprobs, self.finish,
                 self.stop_token, self.error, self.prefill, self.preemptions);
  }
};

}  // namespace chorus

template <>
struct std::hash<chorus::RequestId> {
  // noexcept: a hash that may throw is kept in every node of a table, behind the value, where a look-up must fetch it.
  std::size_t operator()(const chorus::RequestId& id) const noexcept {
    // Clients are few and their numbers small: the client moves to where numbers do not reach.
    return std::hash<std::uint64_t>()(id.number ^ (std::uint64_t{id.client} << 40));
  }
};

// "0/17": request 17 of client 0.
template <>
struct fmt::formatter<chorus::RequestId> {
  constexpr auto parse(fmt::format_parse_context& context) { return context.begin(); }
  auto format(const chorus::RequestId& id, fmt::format_context& context) const {
    return fmt::format_to(context.out(), "{}/{}", id.client, id.number);
  }
};

// The small answers: models, tokens, versions.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "server/openai/generation_request.h"
#include "tokenizer/tokenizer.h"

namespace chorus {

// GET /v1/models, and one of its entries: GET /v1/models/NAME.
std::string models_json(const ServedModel& model, std::int64_t created_s);
std::string model_json(const ServedModel& model, const std::string& name, std::int64_t created_s);

// POST /tokenize: {"prompt", "add_special_tokens"?} or a chat's {"messages", ..}; both "return_token_strs"?.
struct TokenizeRequest {
  std::string text;
  bool add_special_tokens = true;
  bool return_token_strings = false;
};
Parsed<TokenizeRequest> parse_tokenize(const Json& body, const ServedModel& model);
std::string tokenize_json(std::span<const TokenId> tokens, const TokenizeRequest& request, const Tokenizer& tokenizer,
                          int max_model_len);

// POST /detokenize: {"tokens": [..]}.
Parsed<std::vector<TokenId>> parse_detokenize(const Json& body, const ServedModel& model);

// POST /abort_requests: {"request_ids": [..]}, ids of answers, or of requests (X-Request-Id, "request_id").
Parsed<std::vector<std::string>> parse_abort(const Json& body);

// {"NAME": VALUE}.
std::string member_json(std::string_view name, std::string_view value);
std::string member_json(std::string_view name, std::uint64_t value);

}  // namespace chorus

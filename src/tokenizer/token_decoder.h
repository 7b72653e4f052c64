// The "decoder" part of tokenizer.json: tokens to text.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "json/json.h"
#include "tokenizer/tokenizer.h"

namespace chorus {

// What a decoder asks about tokens; nullopt: the token adds no text (unknown, or special and to be skipped).
class TokenText {
 public:
  virtual ~TokenText() = default;
  virtual std::optional<std::string_view> text_of(std::int32_t token, bool skip_special_tokens) const = 0;
};

class TokenDecoder {
 public:
  virtual ~TokenDecoder() = default;
  // `tokens` and this decoder outlive the stream.
  virtual std::unique_ptr<TokenStream> start(const TokenText& tokens, bool skip_special_tokens) const = 0;
  // All at once.
  virtual std::string decode(const TokenText& tokens, std::span<const std::int32_t> ids,
                             bool skip_special_tokens) const;
};

// `config`: the JSON value; null joins tokens by spaces. An unknown type is an error that names it.
Result<std::unique_ptr<const TokenDecoder>> load_token_decoder(const Json& config);

}  // namespace chorus

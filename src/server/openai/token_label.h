// A token alone as text, as logprobs name it: what it decodes to alone, special ones too (vLLM's
// convert_ids_list_to_tokens), U+FFFD where that is a part of a character.
#pragma once

#include <string>

#include "request/request.h"
#include "tokenizer/tokenizer.h"

namespace chorus {

class TokenLabel {
 public:
  // `as_ids`: "token_id:15" instead.
  TokenLabel(const Tokenizer& tokenizer, bool as_ids) : tokenizer_(&tokenizer), as_ids_(as_ids) {}
  std::string operator()(TokenId token) const;

 private:
  const Tokenizer* tokenizer_;
  bool as_ids_;
};

}  // namespace chorus

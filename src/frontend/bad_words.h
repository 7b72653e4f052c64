// Texts that an output must not have, as the runs of token ids that an engine knows (SamplingParams::bad_words).
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "request/request.h"
#include "tokenizer/tokenizer.h"

namespace chorus {

// As vLLM's SamplingParams.update_from_tokenizer: each text without its leading white space, and with one space before
// it where that is another first token and as many tokens. Errors: a text without a token; more than 1,024 tokens.
Result<std::vector<std::vector<TokenId>>> bad_word_runs(const std::vector<std::string>& texts,
                                                        const Tokenizer& tokenizer);

}  // namespace chorus

// What a GGUF file says, in the words of the files that a Hugging Face folder holds, so that everything behind them has
// one way to read a model. Each gives a JSON text.
#pragma once

#include <string>

#include "base/result.h"
#include "gguf/gguf_file.h"

namespace chorus {

// Errors: an architecture that is not read from GGUF (gguf/architecture.h). Values that are missing or make no sense
// are left out or handed on: whoever reads the text says what it needs.
Result<std::string> gguf_config_json(const GgufFile& file);
// The sampling values that the file recommends (general.sampling.*) and every token that ends an answer.
Result<std::string> gguf_generation_config_json(const GgufFile& file);
// Errors: no tokenizer in the file (not_found), a kind or a pre-tokenizer that is not known (with those that are),
// lists of different lengths.
Result<std::string> gguf_tokenizer_json(const GgufFile& file);
// Its special tokens by name, and the chat templates.
Result<std::string> gguf_tokenizer_config_json(const GgufFile& file);

}  // namespace chorus

// The tokenizer's own end-of-sequence token. As in vLLM (SamplingParams.update_from_generation_config): it ends a
// choice beside the ids that the model's configuration names, and it alone is no stop_reason.
#pragma once

#include <string>

#include "base/result.h"
#include "config/model_config.h"
#include "json/json.h"
#include "tokenizer/tokenizer.h"

namespace chorus {

// Makes it `model`'s own when tokenizer_config.json of its directory names one ("eos_token") that the tokenizer knows.
Result<void> add_tokenizer_eos(const Tokenizer& tokenizer, ModelConfig* model);

// A special token of a tokenizer_config.json: a string, or an object with its content. Empty if it is not there.
std::string special_token_text(const Json& config, const char* name);

}  // namespace chorus

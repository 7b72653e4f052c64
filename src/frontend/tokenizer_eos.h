// The tokenizer's own end-of-sequence token. As in vLLM (SamplingParams.update_from_generation_config): it ends a
// choice beside the ids that the model's configuration names, and it alone is no stop_reason.
#pragma once

#include "base/result.h"
#include "config/model_config.h"
#include "tokenizer/tokenizer.h"

namespace chorus {

// Makes it `model`'s own when its directory names one (eos_token, see tokenizer/folder_tokens.h).
Result<void> add_tokenizer_eos(const Tokenizer& tokenizer, ModelConfig* model);

}  // namespace chorus

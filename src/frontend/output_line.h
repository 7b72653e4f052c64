// One output line of `generate`: nothing but what the request determines, so that two runs can be compared with cmp.
#pragma once

#include <string>

#include "frontend/offline.h"
#include "json/json.h"

namespace chorus {

// What was asked for beside text and ids.
struct OutputLineFields {
  bool logprobs = false, prompt_logprobs = false;
  bool metrics = false;  // dp_rank and times
};

// Appends {"id", "prompt", "prompt_token_ids", "outputs": [...], "error"} and a newline.
void append_output_line(const Json& id, const GenerationOutput& output, const OutputLineFields& fields,
                        std::string* out);

}  // namespace chorus

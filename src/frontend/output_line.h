// One output line of `generate`: nothing but what the request determines, so that two runs can be compared with cmp.
#pragma once

#include <string>

#include "frontend/text_generator.h"
#include "json/json.h"

namespace chorus {

// Appends {"id", "prompt", "prompt_token_ids", "outputs": [...], "error"} and a newline. `metrics` adds dp_rank and
// times.
void append_output_line(const Json& id, const GenerationOutput& output, const GenerationOptions& options, bool metrics,
                        std::string* out);

}  // namespace chorus

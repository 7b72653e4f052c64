// OpenAI's content parts for templates that want text.
#pragma once

#include "base/result.h"
#include "json/json.h"

namespace chorus {

// `messages` with each content that is a list of parts as one text, the texts of the parts joined by newlines: vLLM's
// content format "string" (0.32, entrypoints/chat_utils.py). A part is a string or {"type": "text", "text": ..} (also
// input_text, output_text, refusal); one that is no text is an error that names it.
Result<Json> with_contents_as_text(const Json& messages);

}  // namespace chorus

// One line of `generate --input`: {"id"?, "prompt" | "prompt_token_ids" | "messages", "priority"?, <any sampling
// option>}. Beside "messages" also what a chat request has: "tools", "documents", "chat_template",
// "chat_template_kwargs", "add_generation_prompt", "continue_final_message", and "max_completion_tokens", which goes
// before "max_tokens".
#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "base/result.h"
#include "frontend/chat_format.h"
#include "frontend/text_engine.h"

namespace chorus {

struct PromptLine {
  Json id;  // null when the line has none
  GenerationInput input;
};

// Errors (not JSON, no or two kinds of prompt, unknown key with the nearest, bad value) are of the file, not of one
// row: the caller adds the line number and ends before anything runs. A chat template that fails is the row's own
// error: it is in the returned input as `input.error`. `chat` null: messages are checked and no prompt is made of them.
Result<PromptLine> parse_prompt_line(std::string_view line, const ChatFormat* chat, const GenerationOptions& defaults);

// The tokenizer of a model directory; nullptr when it has no tokenizer.json (token ids in, token ids out).
Result<std::shared_ptr<const Tokenizer>> load_tokenizer_if_there(const std::string& directory);

}  // namespace chorus

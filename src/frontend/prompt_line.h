// One line of `generate --input`: {"id"?, "prompt" | "prompt_token_ids" | "messages", "priority"?, <any sampling
// option>}. Beside "messages" also what a chat request has: "tools", "documents", "chat_template",
// "chat_template_kwargs", "add_generation_prompt", "continue_final_message", and "max_completion_tokens", which goes
// before "max_tokens".
#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "frontend/chat_format.h"
#include "frontend/text_engine.h"
#include "json/json.h"

namespace chorus {

struct PromptLine {
  Json id;  // null when the line has none
  GenerationInput input;
};

class PromptLineParser {
 public:
  // `chat` outlives this; null: for check() alone.
  PromptLineParser(const ChatFormat* chat, GenerationOptions defaults) : chat_(chat), defaults_(std::move(defaults)) {}

  // Errors (not JSON, no or two kinds of prompt, unknown key with the nearest, bad value) are of the file, not of one
  // row: the caller adds the line number and ends before anything runs. A chat template that fails is the row's own
  // error: it is in the returned input as `input.error`.
  Result<PromptLine> parse(std::string_view line);
  Result<void> check(std::string_view line);                           // the same errors; no prompt is made
  void set_now(std::int64_t now_unix_s) { now_unix_s_ = now_unix_s; }  // for chat templates; else the clock's

 private:
  Result<void> read(std::string_view text, PromptLine* line, bool makes_prompt);
  Result<void> set_prompt(PromptLine* line, bool makes_prompt);
  Result<void> set_chat_prompt(GenerationInput* input, bool makes_prompt);
  Result<void> set_token_ids(std::size_t member, GenerationInput* input, bool makes_prompt);

  const ChatFormat* chat_;
  GenerationOptions defaults_;
  std::optional<std::int64_t> now_unix_s_;
  JsonObjectReader json_;
  PromptLine checked_;
  std::vector<std::int64_t> numbers_;
};

// The tokenizer of a model directory; nullptr when it has no tokenizer.json (token ids in, token ids out).
Result<std::shared_ptr<const Tokenizer>> load_tokenizer_if_there(const std::string& directory);

}  // namespace chorus

// From chat messages to a prompt: the model's chat template with its special tokens.
#pragma once

#include <map>
#include <string>

#include "base/result.h"
#include "frontend/chat_templates.h"
#include "json/json.h"

namespace chorus {

// Immutable after load.
class ChatFormat {
 public:
  // Reads DIRECTORY's special tokens (tokenizer/folder_tokens.h) and its templates (frontend/chat_templates.h). A model
  // without a template loads; render() then fails and says so.
  static Result<ChatFormat> load(const std::string& directory);

  // `request`: {"messages", "tools"?, "documents"?, "add_generation_prompt"?, "continue_final_message"?,
  // "chat_template"?, "chat_template_kwargs"?, "bos_token"?, "eos_token"?, "now"?, <other template variables>}, as
  // `tokenize --render-chat` takes it. continue_final_message ends the prompt where the last message's text ends, and
  // excludes add_generation_prompt, which is true otherwise. What is in chat_template_kwargs is a template variable
  // too, before all others. `now` is what strftime_now sees, as UTC: seconds since 1970 or "2026-01-15T12:00:00"; the
  // clock's if not given.
  Result<std::string> render(const Json& request) const;

 private:
  Result<std::string> render_template(const Json& request, Json& variables, const RenderOptions& options) const;

  ChatTemplates templates_;
  std::map<std::string, std::string> special_tokens_ = {{"bos_token", ""}, {"eos_token", ""}};  // by variable name
};

}  // namespace chorus

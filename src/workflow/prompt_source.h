// A node's prompt template: prompts_dir/NAME.jinja or NAME.txt, or NAME.json with chat messages.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "jinja/chat_template.h"
#include "json/json.h"

namespace chorus {

class PromptSource {
 public:
  // The first of NAME.jinja, NAME.txt, NAME.json that is there.
  static Result<PromptSource> load(const std::string& prompts_dir, const std::string& name);

  struct Prompt {
    std::string text;      // or
    std::string messages;  // JSON
  };
  // `fields`: a JSON object. A field that is missing is an error that names it.
  Result<Prompt> render(const Json& fields, std::int64_t now_unix_s) const;
  const std::string& path() const { return path_; }
  const std::string& content() const { return content_; }  // of the file

 private:
  std::string path_, content_;
  bool is_chat_ = false;
  std::vector<std::pair<std::string, Template>> parts_;  // role (empty for a plain prompt) and template
};

}  // namespace chorus

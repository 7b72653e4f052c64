// The chat templates of a model's folder, one or several by name.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "base/result.h"
#include "jinja/chat_template.h"
#include "json/json.h"

namespace chorus {

// Immutable after load. As transformers' PreTrainedTokenizerBase.get_chat_template chooses.
class ChatTemplates {
 public:
  // chat_template.jinja (the one called default) and additional_chat_templates/NAME.jinja; where there are none of them
  // `config`'s chat_template, a string or a list of {"name", "template"}. Folders without any load, and so do templates
  // that cannot be parsed: choose() says so.
  static Result<ChatTemplates> load(const std::string& directory, const Json& config);

  // The template of `request`'s "chat_template", which is a text or one of the names; without it tool_use if the
  // request has "tools" (other than null) and there is one, else the default.
  Result<std::shared_ptr<const Template>> choose(const Json& request) const;

 private:
  using Parsed = Result<std::shared_ptr<const Template>>;
  void add(const std::string& name, const std::string& source);
  Result<void> add_files(const std::string& directory);

  std::string directory_;
  std::map<std::string, Parsed> templates_;
  bool named_ = false;  // a request may give a name: there is more than the one file or text
};

}  // namespace chorus

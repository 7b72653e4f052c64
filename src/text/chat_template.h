// Chat templates: a Jinja subset of our own, enough for every template that Hugging Face models ship. It runs no code but the
// template's, touches no file, and every evaluation has a fuel and a size limit: a template is untrusted input.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "base/result.h"
#include "json/json.h"

namespace chorus {

struct TemplateLimits {
  std::uint64_t steps_max = 5'000'000;          // evaluated nodes
  std::uint64_t output_bytes_max = 64u << 20;
  int depth_max = 200;                          // nested expressions, blocks, macro calls
};

// A parsed template; immutable, may be rendered by several threads at once.
class Template {
 public:
  // `name` appears in errors: "chat_template:12: unknown filter 'foo'". trim_blocks and lstrip_blocks as transformers sets them.
  static Result<Template> parse(std::string_view source, std::string name);
  // `variables`: a JSON object. An undefined variable renders as nothing, as in jinja2; with `strict` it is an error that
  // names it (workflow prompts). `now_unix_s`: what strftime_now sees (local time is UTC).
  Result<std::string> render(const Json& variables, const TemplateLimits& limits = {}, bool strict = false) const;

 private:
  struct Node;
  std::shared_ptr<const Node> root_;
  std::string name_;
};

}  // namespace chorus

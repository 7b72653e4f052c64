// Chat templates: a Jinja subset of our own, enough for every template that Hugging Face models ship. It runs no code
// but the template's, touches no file, and every evaluation has a fuel and a size limit: a template is untrusted input.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "base/result.h"
#include "json/json.h"

namespace chorus {

struct TemplateLimits {
  std::uint64_t steps_max = 5'000'000;         // evaluated nodes, and what operations read and write
  std::uint64_t memory_bytes_max = 64u << 20;  // of all values, variables and the output together, at any time
  int depth_max = 600;                         // nested expressions, blocks, macro calls
};

struct RenderOptions {
  TemplateLimits limits;
  bool strict = false;          // an undefined variable is an error that names it, not nothing (workflow prompts)
  std::int64_t now_unix_s = 0;  // what strftime_now sees, as UTC
};

// A parsed template; immutable, may be rendered by several threads at once. trim_blocks and lstrip_blocks are on, as in
// transformers; the globals are range, dict, namespace, cycler, joiner, raise_exception and strftime_now.
class Template {
 public:
  // `name` appears in errors: "chat_template:12: TemplateSyntaxError: unexpected '}'".
  static Result<Template> parse(std::string_view source, std::string name);
  // `variables`: a JSON object. What raise_exception(message) says comes as "name:line: message".
  Result<std::string> render(const Json& variables, const RenderOptions& options = {}) const;
  // Whether it goes through the parts of a message's content itself (jinja/content_format.h).
  bool takes_content_in_parts() const;

 private:
  struct Node;
  std::shared_ptr<const Node> root_;
  std::string name_;
};

}  // namespace chorus

#include "jinja/chat_template.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "jinja/content_format.h"
#include "jinja/interpreter.h"
#include "jinja/parser.h"

namespace chorus {
namespace {

Error to_error(const jinja::TemplateError& error, const std::string& name) {
  return fail(error.code, "{}:{}: {}{}{}", name, error.line, error.kind, error.kind.empty() ? "" : ": ", error.message);
}

}  // namespace

struct Template::Node {
  jinja::Body body;
};

Result<Template> Template::parse(std::string_view source, std::string name) {
  Template result;
  try {
    result.root_ = std::make_shared<const Node>(Node{jinja::parse_template(source)});
  } catch (const jinja::TemplateError& error) {
    return to_error(error, name);
  }
  result.name_ = std::move(name);
  return result;
}

bool Template::takes_content_in_parts() const {
  return jinja::loops_over_content(root_->body);
}

Result<std::string> Template::render(const Json& variables, const RenderOptions& options) const {
  if (!variables.is_object())
    return fail(ErrorCode::invalid_argument, "{}: the variables are not a JSON object", name_);
  try {
    jinja::Interpreter interpreter(options.limits, options.strict, options.now_unix_s);
    return interpreter.render(root_->body, variables);
  } catch (const jinja::TemplateError& error) {
    return to_error(error, name_);
  }
}

}  // namespace chorus

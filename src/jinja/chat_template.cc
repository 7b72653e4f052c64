#include "jinja/chat_template.h"

#include <new>
#include <nlohmann/json.hpp>
#include <stdexcept>
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
  } catch (const std::bad_alloc&) {
    return fail(ErrorCode::resource_exhausted, "{}: no memory to parse the template", name);
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
  } catch (const std::bad_alloc&) {
    return fail(ErrorCode::resource_exhausted, "{}: no memory to render the template", name_);
  } catch (const std::length_error&) {
    return fail(ErrorCode::resource_exhausted, "{}: a value longer than there can be", name_);
  }
}

}  // namespace chorus

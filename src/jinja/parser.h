// From tokens to the tree, by jinja2's own grammar (jinja2/parser.py 3.1).
#pragma once

#include <string_view>

#include "jinja/ast.h"

namespace chorus::jinja {

// Throws TemplateError (TemplateSyntaxError) with its line.
Body parse_template(std::string_view source);

}  // namespace chorus::jinja

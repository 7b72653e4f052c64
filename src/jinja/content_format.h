// Whether a chat template takes a message's content in parts.
#pragma once

#include "jinja/ast.h"

namespace chorus::jinja {

// True if some loop of the template goes over the content of a message, as vLLM decides it from the parsed template
// (0.32, renderers/hf.py, _iter_nodes_assign_content_item): over message.content or message['content'] of a loop over
// `messages`, through filters and slices, over a parameter of a macro that is called with it, or over a variable named
// content. Else the template wants text.
bool loops_over_content(const Body& body);

}  // namespace chorus::jinja

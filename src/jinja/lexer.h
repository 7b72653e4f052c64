// Cuts a template's source into tokens with jinja2's white space rules: trim_blocks and lstrip_blocks on, the signs -
// and + at a tag's ends, comments and raw blocks gone, one newline at the end of the source dropped.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace chorus::jinja {

enum class TokenType {
  data,
  variable_begin,
  variable_end,
  block_begin,
  block_end,
  name,
  integer,
  real,
  string,
  symbol,
  end
};

struct Token {
  TokenType type = TokenType::end;
  std::string text;  // data and string: the text itself; numbers without their underscores; else as written
  int line = 1;
};

// Throws TemplateError (TemplateSyntaxError).
std::vector<Token> tokenize(std::string_view source);

}  // namespace chorus::jinja

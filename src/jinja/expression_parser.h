// The expression half of the parser, and the token cursor that both halves share.
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "jinja/ast.h"
#include "jinja/lexer.h"

namespace chorus::jinja {

class ExpressionParser {
 public:
  explicit ExpressionParser(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

 protected:
  const Token& current() const { return tokens_[at_]; }
  const Token& look() const { return tokens_[at_ + 1 < tokens_.size() ? at_ + 1 : at_]; }
  Token next();
  bool is(TokenType type, std::string_view text) const { return current().type == type && current().text == text; }
  bool is_name(std::string_view text) const { return is(TokenType::name, text); }
  bool is_symbol(std::string_view text) const { return is(TokenType::symbol, text); }
  bool skip_name(std::string_view text);
  bool skip_symbol(std::string_view text);
  void expect_name(std::string_view text);
  void expect_symbol(std::string_view text);
  void expect(TokenType type, const char* what);
  std::string expect_any_name();
  [[noreturn]] void fail(const std::string& message) const;

  ExpressionPtr parse_expression(bool with_conditional = true);
  ExpressionPtr parse_primary();
  // One expression, or a tuple where commas follow. `end_name` ends it too ("recursive").
  ExpressionPtr parse_tuple(bool with_conditional = true, std::string_view end_name = {}, bool in_parentheses = false);
  // A name, tuple of names or (with_namespace) namespace.attribute.
  ExpressionPtr parse_target(std::string_view end_name = {}, bool with_namespace = false);
  ExpressionPtr parse_filters(ExpressionPtr input, bool start_inline);
  void enter();  // one level of nesting; fails when there are too many
  void leave() { --depth_; }

  // Macros being parsed, innermost last: a use of caller, kwargs or varargs is noted in all of them.
  std::vector<MacroDefinition*> macros_;

 private:
  using Type = Expression::Type;
  using Parse = ExpressionPtr (ExpressionParser::*)();
  ExpressionPtr make(Type type, int line, std::string name, std::vector<ExpressionPtr> children);
  ExpressionPtr finish(std::unique_ptr<Expression> expression) const;
  ExpressionPtr parse_binary(Parse operand, std::initializer_list<std::string_view> symbols);
  ExpressionPtr parse_conditional();
  ExpressionPtr parse_or();
  ExpressionPtr parse_and();
  ExpressionPtr parse_not();
  ExpressionPtr parse_compare();
  ExpressionPtr parse_sum();
  ExpressionPtr parse_concat();
  ExpressionPtr parse_product();
  ExpressionPtr parse_power();
  ExpressionPtr parse_unary_with_filters();
  ExpressionPtr parse_unary(bool with_filter);
  ExpressionPtr parse_name();
  ExpressionPtr parse_number();
  ExpressionPtr parse_list();
  ExpressionPtr parse_dict();
  ExpressionPtr parse_postfix(ExpressionPtr node);
  ExpressionPtr parse_filter_expression(ExpressionPtr node);
  ExpressionPtr parse_subscript(ExpressionPtr node);
  ExpressionPtr parse_subscribed();
  ExpressionPtr parse_test(ExpressionPtr node);
  ExpressionPtr parse_call(ExpressionPtr node);
  CallArguments parse_arguments();
  std::string parse_dotted_name();

  std::vector<Token> tokens_;
  std::size_t at_ = 0;
  int depth_ = 0;
};

}  // namespace chorus::jinja

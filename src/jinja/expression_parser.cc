#include "jinja/expression_parser.h"

#include <algorithm>
#include <charconv>

namespace chorus::jinja {
namespace {

constexpr int depth_max = 200;             // nested brackets, tags: bounds this parser's recursion
constexpr int expression_depth_max = 400;  // of the tree: chains such as a+b+c+... lean to one side

std::string describe(const Token& token) {
  switch (token.type) {
    case TokenType::data:
      return "template data";
    case TokenType::variable_begin:
      return "'{{'";
    case TokenType::variable_end:
      return "end of print statement";
    case TokenType::block_begin:
      return "'{%'";
    case TokenType::block_end:
      return "end of statement block";
    case TokenType::end:
      return "end of template";
    default:
      return "'" + token.text + "'";
  }
}

template <typename... Children>
std::vector<ExpressionPtr> children_of(Children... children) {
  std::vector<ExpressionPtr> all;
  (all.push_back(std::move(children)), ...);
  return all;
}

}  // namespace

Token ExpressionParser::next() {
  Token token = current();
  if (at_ + 1 < tokens_.size()) ++at_;
  return token;
}

bool ExpressionParser::skip_name(std::string_view text) {
  const bool found = is_name(text);
  if (found) next();
  return found;
}

bool ExpressionParser::skip_symbol(std::string_view text) {
  const bool found = is_symbol(text);
  if (found) next();
  return found;
}

void ExpressionParser::expect_name(std::string_view text) {
  if (!skip_name(text)) fail(fmt::format("expected token '{}', got {}", text, describe(current())));
}

void ExpressionParser::expect_symbol(std::string_view text) {
  if (!skip_symbol(text)) fail(fmt::format("expected token '{}', got {}", text, describe(current())));
}

void ExpressionParser::expect(TokenType type, const char* what) {
  if (current().type != type) fail(fmt::format("expected token '{}', got {}", what, describe(current())));
  next();
}

std::string ExpressionParser::expect_any_name() {
  if (current().type != TokenType::name) fail(fmt::format("expected token 'name', got {}", describe(current())));
  return next().text;
}

void ExpressionParser::fail(const std::string& message) const {
  throw TemplateError{ErrorCode::invalid_argument, "TemplateSyntaxError", message, current().line};
}

void ExpressionParser::enter() {
  if (++depth_ > depth_max) fail(fmt::format("nested deeper than {} levels", depth_max));
}

ExpressionPtr ExpressionParser::finish(std::unique_ptr<Expression> expression) const {
  int below = 0;
  const auto count = [&below](const ExpressionPtr& child) {
    if (child) below = std::max(below, child->depth);
  };
  for (const ExpressionPtr& child : expression->children) count(child);
  for (const ExpressionPtr& child : expression->arguments.positional) count(child);
  for (const auto& [name, child] : expression->arguments.named) count(child);
  count(expression->arguments.star);
  count(expression->arguments.double_star);
  expression->depth = below + 1;
  if (expression->depth > expression_depth_max)
    fail(fmt::format("an expression of more than {} levels", expression_depth_max));
  return expression;
}

ExpressionPtr ExpressionParser::make(Type type, int line, std::string name, std::vector<ExpressionPtr> children) {
  auto expression = std::make_unique<Expression>();
  expression->type = type;
  expression->line = line;
  expression->name = std::move(name);
  expression->children = std::move(children);
  return finish(std::move(expression));
}

ExpressionPtr ExpressionParser::parse_expression(bool with_conditional) {
  enter();
  ExpressionPtr expression = with_conditional ? parse_conditional() : parse_or();
  leave();
  return expression;
}

ExpressionPtr ExpressionParser::parse_conditional() {
  const int line = current().line;
  ExpressionPtr value = parse_or();
  while (skip_name("if")) {
    ExpressionPtr condition = parse_or();
    ExpressionPtr otherwise;
    if (skip_name("else")) otherwise = parse_expression();
    value =
        make(Type::conditional, line, "", children_of(std::move(condition), std::move(value), std::move(otherwise)));
  }
  return value;
}

ExpressionPtr ExpressionParser::parse_or() {
  ExpressionPtr left = parse_and();
  for (int line = current().line; skip_name("or"); line = current().line) {
    left = make(Type::logical_or, line, "", children_of(std::move(left), parse_and()));
  }
  return left;
}

ExpressionPtr ExpressionParser::parse_and() {
  ExpressionPtr left = parse_not();
  for (int line = current().line; skip_name("and"); line = current().line) {
    left = make(Type::logical_and, line, "", children_of(std::move(left), parse_not()));
  }
  return left;
}

ExpressionPtr ExpressionParser::parse_not() {
  const int line = current().line;
  if (!skip_name("not")) return parse_compare();
  enter();
  ExpressionPtr operand = parse_not();
  leave();
  return make(Type::logical_not, line, "", children_of(std::move(operand)));
}

ExpressionPtr ExpressionParser::parse_compare() {
  static constexpr std::string_view symbols[] = {"==", "!=", "<", "<=", ">", ">="};
  auto expression = std::make_unique<Expression>();
  expression->type = Type::compare;
  expression->line = current().line;
  expression->children.push_back(parse_sum());
  for (;;) {
    std::string symbol;
    if (current().type == TokenType::symbol && std::ranges::find(symbols, current().text) != std::end(symbols)) {
      symbol = next().text;
    } else if (skip_name("in")) {
      symbol = "in";
    } else if (is_name("not") && look().type == TokenType::name && look().text == "in") {
      next();
      next();
      symbol = "not in";
    } else {
      break;
    }
    expression->operators.push_back(std::move(symbol));
    expression->children.push_back(parse_sum());
  }
  if (expression->operators.empty()) return std::move(expression->children[0]);
  return finish(std::move(expression));
}

ExpressionPtr ExpressionParser::parse_binary(Parse operand, std::initializer_list<std::string_view> symbols) {
  ExpressionPtr left = (this->*operand)();
  while (current().type == TokenType::symbol && std::ranges::find(symbols, current().text) != symbols.end()) {
    Token symbol = next();
    left = make(Type::binary, symbol.line, symbol.text, children_of(std::move(left), (this->*operand)()));
  }
  return left;
}

ExpressionPtr ExpressionParser::parse_sum() {
  return parse_binary(&ExpressionParser::parse_concat, {"+", "-"});
}

ExpressionPtr ExpressionParser::parse_concat() {
  const int line = current().line;
  std::vector<ExpressionPtr> parts = children_of(parse_product());
  while (skip_symbol("~")) parts.push_back(parse_product());
  if (parts.size() == 1) return std::move(parts[0]);
  return make(Type::concat, line, "", std::move(parts));
}

ExpressionPtr ExpressionParser::parse_product() {
  return parse_binary(&ExpressionParser::parse_power, {"*", "/", "//", "%"});
}

ExpressionPtr ExpressionParser::parse_power() {
  return parse_binary(&ExpressionParser::parse_unary_with_filters, {"**"});
}

ExpressionPtr ExpressionParser::parse_unary_with_filters() {
  return parse_unary(true);
}

ExpressionPtr ExpressionParser::parse_unary(bool with_filter) {
  const int line = current().line;
  enter();
  ExpressionPtr node;
  if (skip_symbol("-")) {
    node = make(Type::negate, line, "", children_of(parse_unary(false)));
  } else if (skip_symbol("+")) {
    node = make(Type::plus, line, "", children_of(parse_unary(false)));
  } else {
    node = parse_primary();
  }
  node = parse_postfix(std::move(node));
  if (with_filter) node = parse_filter_expression(std::move(node));
  leave();
  return node;
}

ExpressionPtr ExpressionParser::parse_primary() {
  const int line = current().line;
  switch (current().type) {
    case TokenType::name:
      return parse_name();
    case TokenType::integer:
    case TokenType::real:
      return parse_number();
    case TokenType::string: {
      std::string text;
      while (current().type == TokenType::string) text += next().text;
      auto constant = std::make_unique<Expression>();
      constant->type = Type::constant;
      constant->line = line;
      constant->constant = Value::of(String(text, Charged<char>(nullptr)));
      return constant;
    }
    default:
      break;
  }
  if (skip_symbol("(")) {
    ExpressionPtr inner = parse_tuple(true, {}, true);
    expect_symbol(")");
    return inner;
  }
  if (is_symbol("[")) return parse_list();
  if (is_symbol("{")) return parse_dict();
  fail("unexpected " + describe(current()));
}

ExpressionPtr ExpressionParser::parse_name() {
  Token token = next();
  auto expression = std::make_unique<Expression>();
  expression->line = token.line;
  expression->type = Type::constant;
  if (token.text == "true" || token.text == "True") {
    expression->constant = Value::of(true);
  } else if (token.text == "false" || token.text == "False") {
    expression->constant = Value::of(false);
  } else if (token.text == "none" || token.text == "None") {
    expression->constant = Value::none();
  } else {
    expression->type = Type::name;
    for (MacroDefinition* macro : macros_) {
      macro->uses_caller |= token.text == "caller";
      macro->uses_kwargs |= token.text == "kwargs";
      macro->uses_varargs |= token.text == "varargs";
    }
    expression->name = std::move(token.text);
  }
  return expression;
}

ExpressionPtr ExpressionParser::parse_number() {
  const Token token = current();
  auto expression = std::make_unique<Expression>();
  expression->type = Type::constant;
  expression->line = token.line;
  const char* begin = token.text.data();
  const char* end = begin + token.text.size();
  if (token.type == TokenType::real) {
    double number = 0;
    if (std::from_chars(begin, end, number).ec == std::errc::result_out_of_range) {
      number = token.text.find("e-") != std::string::npos ? 0.0 : HUGE_VAL;
    }
    expression->constant = Value::of(number);
  } else {
    const char prefix = token.text.size() > 1 ? static_cast<char>(token.text[1] | 0x20) : ' ';
    const int base = prefix == 'x' ? 16 : prefix == 'o' ? 8 : prefix == 'b' ? 2 : 10;
    const auto number = parse_digits(std::string_view(token.text).substr(base == 10 ? 0 : 2), base);
    if (!number) fail("the integer " + token.text + " has a digit that is none");
    expression->constant = Value::of(*number);
  }
  next();
  return expression;
}

ExpressionPtr ExpressionParser::parse_tuple(bool with_conditional, std::string_view end_name, bool in_parentheses) {
  const int line = current().line;
  const auto at_end = [&] {
    const TokenType type = current().type;
    return type == TokenType::variable_end || type == TokenType::block_end || is_symbol(")") ||
           (!end_name.empty() && is_name(end_name));
  };
  std::vector<ExpressionPtr> items;
  bool is_tuple = false;
  for (;;) {
    if (!items.empty()) expect_symbol(",");
    if (at_end()) break;
    items.push_back(parse_expression(with_conditional));
    if (!is_symbol(",")) break;
    is_tuple = true;
  }
  if (!is_tuple && !items.empty()) return std::move(items[0]);
  if (!is_tuple && !in_parentheses) fail("Expected an expression, got " + describe(current()));
  return make(Type::tuple, line, "", std::move(items));
}

ExpressionPtr ExpressionParser::parse_target(std::string_view end_name, bool with_namespace) {
  const int line = current().line;
  std::vector<ExpressionPtr> items;
  bool is_tuple = false;
  for (;;) {
    if (current().type == TokenType::variable_end || current().type == TokenType::block_end || is_symbol(")") ||
        is_symbol("=") || (!end_name.empty() && is_name(end_name))) {
      break;
    }
    if (skip_symbol("(")) {
      enter();
      items.push_back(parse_target(end_name, with_namespace));
      leave();
      expect_symbol(")");
    } else if (with_namespace && current().type == TokenType::name && look().type == TokenType::symbol &&
               look().text == ".") {
      auto target = std::make_unique<Expression>();
      target->type = Type::namespace_attribute;
      target->line = line;
      target->name = next().text;
      next();
      target->attribute_name = expect_any_name();
      items.push_back(std::move(target));
    } else {
      ExpressionPtr target = parse_primary();
      if (target->type != Type::name) fail("can't assign to this expression");
      items.push_back(std::move(target));
    }
    if (!skip_symbol(",")) break;
    is_tuple = true;
  }
  if (items.empty()) fail("Expected an expression, got " + describe(current()));
  if (!is_tuple) return std::move(items[0]);
  return make(Type::tuple, line, "", std::move(items));
}

ExpressionPtr ExpressionParser::parse_list() {
  const int line = next().line;
  std::vector<ExpressionPtr> items;
  while (!is_symbol("]")) {
    if (!items.empty()) expect_symbol(",");
    if (is_symbol("]")) break;
    items.push_back(parse_expression());
  }
  expect_symbol("]");
  return make(Type::list, line, "", std::move(items));
}

ExpressionPtr ExpressionParser::parse_dict() {
  const int line = next().line;
  std::vector<ExpressionPtr> items;
  while (!is_symbol("}")) {
    if (!items.empty()) expect_symbol(",");
    if (is_symbol("}")) break;
    items.push_back(parse_expression());
    expect_symbol(":");
    items.push_back(parse_expression());
  }
  expect_symbol("}");
  return make(Type::dict, line, "", std::move(items));
}

ExpressionPtr ExpressionParser::parse_postfix(ExpressionPtr node) {
  for (;;) {
    if (is_symbol(".") || is_symbol("[")) {
      node = parse_subscript(std::move(node));
    } else if (is_symbol("(")) {
      node = parse_call(std::move(node));
    } else {
      return node;
    }
  }
}

ExpressionPtr ExpressionParser::parse_filter_expression(ExpressionPtr node) {
  for (;;) {
    if (is_symbol("|")) {
      node = parse_filters(std::move(node), false);
    } else if (is_name("is")) {
      node = parse_test(std::move(node));
    } else if (is_symbol("(")) {
      node = parse_call(std::move(node));
    } else {
      return node;
    }
  }
}

ExpressionPtr ExpressionParser::parse_subscript(ExpressionPtr node) {
  const int line = current().line;
  if (skip_symbol(".")) {
    if (current().type == TokenType::name)
      return make(Type::attribute, line, next().text, children_of(std::move(node)));
    if (current().type != TokenType::integer) fail("expected name or number");
    return make(Type::item, line, "", children_of(std::move(node), parse_number()));
  }
  expect_symbol("[");
  std::vector<ExpressionPtr> keys;
  while (!is_symbol("]")) {
    if (!keys.empty()) expect_symbol(",");
    keys.push_back(parse_subscribed());
  }
  expect_symbol("]");
  ExpressionPtr key = keys.size() == 1 ? std::move(keys[0]) : make(Type::tuple, line, "", std::move(keys));
  return make(Type::item, line, "", children_of(std::move(node), std::move(key)));
}

ExpressionPtr ExpressionParser::parse_subscribed() {
  const int line = current().line;
  const auto at_end = [&] { return is_symbol("]") || is_symbol(",") || is_symbol(":"); };
  ExpressionPtr begin;
  if (!is_symbol(":")) {
    begin = parse_expression();
    if (!is_symbol(":")) return begin;
  }
  next();
  ExpressionPtr end;
  ExpressionPtr step;
  if (!at_end()) end = parse_expression();
  if (skip_symbol(":") && !at_end()) step = parse_expression();
  return make(Type::slice, line, "", children_of(std::move(begin), std::move(end), std::move(step)));
}

CallArguments ExpressionParser::parse_arguments() {
  CallArguments arguments;
  expect_symbol("(");
  const auto ensure = [&](bool valid) {
    if (!valid) fail("invalid syntax for function call expression");
  };
  for (bool first = true; !is_symbol(")"); first = false) {
    if (!first) expect_symbol(",");
    if (is_symbol(")")) break;
    if (skip_symbol("*")) {
      ensure(!arguments.star && !arguments.double_star);
      arguments.star = parse_expression();
    } else if (skip_symbol("**")) {
      ensure(!arguments.double_star);
      arguments.double_star = parse_expression();
    } else if (current().type == TokenType::name && look().type == TokenType::symbol && look().text == "=") {
      ensure(!arguments.double_star);
      std::string name = next().text;
      next();
      arguments.named.emplace_back(std::move(name), parse_expression());
    } else {
      ensure(!arguments.star && !arguments.double_star && arguments.named.empty());
      arguments.positional.push_back(parse_expression());
    }
  }
  expect_symbol(")");
  return arguments;
}

ExpressionPtr ExpressionParser::parse_call(ExpressionPtr node) {
  auto call = std::make_unique<Expression>();
  call->type = Type::call;
  call->line = current().line;
  call->children.push_back(std::move(node));
  call->arguments = parse_arguments();
  return finish(std::move(call));
}

std::string ExpressionParser::parse_dotted_name() {
  std::string name = expect_any_name();
  while (skip_symbol(".")) name += "." + expect_any_name();
  return name;
}

ExpressionPtr ExpressionParser::parse_filters(ExpressionPtr input, bool start_inline) {
  while (start_inline || is_symbol("|")) {
    if (!start_inline) next();
    start_inline = false;
    auto filter = std::make_unique<Expression>();
    filter->type = Type::filter;
    filter->line = current().line;
    filter->name = parse_dotted_name();
    filter->children.push_back(std::move(input));
    if (is_symbol("(")) filter->arguments = parse_arguments();
    input = finish(std::move(filter));
  }
  return input;
}

ExpressionPtr ExpressionParser::parse_test(ExpressionPtr node) {
  const int line = next().line;
  const bool negated = skip_name("not");
  auto test = std::make_unique<Expression>();
  test->type = Type::test;
  test->line = line;
  test->name = parse_dotted_name();
  test->children.push_back(std::move(node));
  const TokenType type = current().type;
  const bool literal = type == TokenType::name || type == TokenType::string || type == TokenType::integer ||
                       type == TokenType::real || is_symbol("[") || is_symbol("{");
  if (is_symbol("(")) {
    test->arguments = parse_arguments();
  } else if (literal && !is_name("else") && !is_name("or") && !is_name("and")) {
    if (is_name("is")) fail("You cannot chain multiple tests with is");
    test->arguments.positional.push_back(parse_postfix(parse_primary()));
  }
  ExpressionPtr result = finish(std::move(test));
  return negated ? make(Type::logical_not, line, "", children_of(std::move(result))) : std::move(result);
}

}  // namespace chorus::jinja

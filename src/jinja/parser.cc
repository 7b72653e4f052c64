#include "jinja/parser.h"

#include <algorithm>
#include <array>

#include "jinja/expression_parser.h"

namespace chorus::jinja {
namespace {

class Parser : public ExpressionParser {
 public:
  using ExpressionParser::ExpressionParser;

  Body parse() {
    Body body = parse_body({});
    if (current().type != TokenType::end) fail("unexpected end of a block");
    return body;
  }

 private:
  using Ends = std::initializer_list<std::string_view>;
  using Type = Statement::Type;
  using Parse = std::unique_ptr<Statement> (Parser::*)();
  struct Tag {
    std::string_view name;
    Parse parse;
  };
  static const std::array<Tag, 12> tags;

  static std::unique_ptr<Statement> make(Type type, int line) {
    auto statement = std::make_unique<Statement>();
    statement->type = type;
    statement->line = line;
    return statement;
  }

  bool at_any(Ends ends) const {
    for (const std::string_view name : ends) {
      if (is_name(name)) return true;
    }
    return false;
  }

  // Up to one of `ends`, which becomes the current token; with no ends, up to the end of the template.
  Body parse_body(Ends ends) {
    enter();
    Body body;
    for (;;) {
      const Token& token = current();
      if (token.type == TokenType::end) {
        if (ends.size() != 0) fail(fmt::format("Unexpected end of template: '{}' is missing", *(ends.end() - 1)));
        break;
      }
      if (token.type == TokenType::data) {
        auto data = make(Type::data, token.line);
        data->text = next().text;
        body.push_back(std::move(data));
      } else if (token.type == TokenType::variable_begin) {
        auto print = make(Type::print, next().line);
        print->expressions.push_back(parse_tuple());
        expect(TokenType::variable_end, "end of print statement");
        body.push_back(std::move(print));
      } else {
        next();
        if (at_any(ends)) break;
        body.push_back(parse_statement());
        expect(TokenType::block_end, "end of statement block");
      }
    }
    leave();
    return body;
  }

  // After a tag's expressions: its end, then the body.
  Body parse_tag_body(Ends ends) {
    skip_symbol(":");
    expect(TokenType::block_end, "end of statement block");
    return parse_body(ends);
  }

  Body parse_whole_body(std::string_view end) {
    Body body = parse_tag_body({end});
    next();
    return body;
  }

  std::unique_ptr<Statement> parse_statement() {
    if (current().type != TokenType::name) fail("tag name expected");
    for (const Tag& tag : tags) {
      if (is_name(tag.name)) return (this->*tag.parse)();
    }
    const std::string name = current().text;
    if (name == "include" || name == "import" || name == "from" || name == "extends") {
      fail(fmt::format("'{}' is not supported: a chat template is one file", name));
    }
    fail(fmt::format("Encountered unknown tag '{}'", name));
  }

  std::unique_ptr<Statement> parse_if() {
    auto statement = make(Type::branch, current().line);
    while (is_name("if") || is_name("elif")) {
      next();
      ExpressionPtr condition = parse_tuple(false);
      statement->branches.emplace_back(std::move(condition), parse_tag_body({"elif", "else", "endif"}));
    }
    if (next().text == "else") statement->body = parse_whole_body("endif");
    return statement;
  }

  static bool names_loop(const Expression& target) {
    return target.name == "loop" ||
           std::ranges::any_of(target.children, [](const auto& child) { return names_loop(*child); });
  }

  std::unique_ptr<Statement> parse_for() {
    auto statement = make(Type::loop, next().line);
    statement->targets.push_back(parse_target("in"));
    if (names_loop(*statement->targets[0])) {
      throw TemplateError{ErrorCode::invalid_argument, "TemplateAssertionError",
                          "can't assign to special loop variable in for-loop", statement->line};
    }
    expect_name("in");
    statement->expressions.push_back(parse_tuple(false, "recursive"));
    if (skip_name("if")) statement->condition = parse_expression();
    statement->recursive = skip_name("recursive");
    ++loops_;
    statement->body = parse_tag_body({"endfor", "else"});
    --loops_;
    if (next().text == "else") statement->else_body = parse_whole_body("endfor");
    return statement;
  }

  std::unique_ptr<Statement> parse_set() {
    const int line = next().line;
    ExpressionPtr target = parse_target({}, true);
    auto statement = make(skip_symbol("=") ? Type::assign : Type::assign_block, line);
    statement->targets.push_back(std::move(target));
    if (statement->type == Type::assign) {
      statement->expressions.push_back(parse_tuple());
    } else {
      statement->filter = parse_filters(nullptr, false);
      statement->body = parse_whole_body("endset");
    }
    return statement;
  }

  void parse_parameters(MacroDefinition* macro) {
    expect_symbol("(");
    while (!is_symbol(")")) {
      if (!macro->parameters.empty()) expect_symbol(",");
      Parameter parameter{expect_any_name(), nullptr};
      if (skip_symbol("=")) {
        parameter.default_value = parse_expression();
      } else if (!macro->parameters.empty() && macro->parameters.back().default_value) {
        fail("non-default argument follows default argument");
      }
      macro->parameters.push_back(std::move(parameter));
    }
    expect_symbol(")");
  }

  void parse_macro_body(MacroDefinition* macro, std::string_view end) {
    macros_.push_back(macro);
    const int loops = std::exchange(loops_, 0);  // break does not leave a macro
    macro->body = parse_whole_body(end);
    loops_ = loops;
    macros_.pop_back();
  }

  std::unique_ptr<Statement> parse_macro() {
    auto statement = make(Type::macro, next().line);
    statement->macro.name = expect_any_name();
    parse_parameters(&statement->macro);
    parse_macro_body(&statement->macro, "endmacro");
    return statement;
  }

  std::unique_ptr<Statement> parse_call_block() {
    auto statement = make(Type::call, next().line);
    if (is_symbol("(")) parse_parameters(&statement->macro);
    statement->macro.name = "caller";
    statement->expressions.push_back(parse_expression());
    if (statement->expressions[0]->type != Expression::Type::call) fail("expected call");
    parse_macro_body(&statement->macro, "endcall");
    return statement;
  }

  std::unique_ptr<Statement> parse_filter_block() {
    auto statement = make(Type::filter_block, next().line);
    statement->filter = parse_filters(nullptr, true);
    statement->body = parse_whole_body("endfilter");
    return statement;
  }

  std::unique_ptr<Statement> parse_with() {
    auto statement = make(Type::with, next().line);
    while (current().type != TokenType::block_end) {
      if (!statement->targets.empty()) expect_symbol(",");
      ExpressionPtr target = parse_primary();
      if (target->type != Expression::Type::name) fail("can't assign to this expression");
      statement->targets.push_back(std::move(target));
      expect_symbol("=");
      statement->expressions.push_back(parse_expression());
    }
    statement->body = parse_whole_body("endwith");
    return statement;
  }

  std::unique_ptr<Statement> parse_generation() {
    auto statement = make(Type::scope, next().line);
    statement->body = parse_whole_body("endgeneration");
    return statement;
  }

  // Nothing extends a chat template, so a block stands for its body.
  std::unique_ptr<Statement> parse_block() {
    auto statement = make(Type::scope, next().line);
    const std::string name = expect_any_name();
    skip_name("scoped");
    skip_name("required");
    statement->body = parse_whole_body("endblock");
    skip_name(name);
    return statement;
  }

  std::unique_ptr<Statement> parse_print() {
    auto statement = make(Type::print, next().line);
    while (current().type != TokenType::block_end) {
      if (!statement->expressions.empty()) expect_symbol(",");
      statement->expressions.push_back(parse_expression());
    }
    return statement;
  }

  std::unique_ptr<Statement> parse_break() { return parse_jump(Type::break_loop); }
  std::unique_ptr<Statement> parse_continue() { return parse_jump(Type::continue_loop); }
  std::unique_ptr<Statement> parse_jump(Type type) {
    if (loops_ == 0) fail(fmt::format("'{}' outside loop", current().text));
    return make(type, next().line);
  }

  int loops_ = 0;  // loops around, up to the innermost macro
};

const std::array<Parser::Tag, 12> Parser::tags = {{
    {"if", &Parser::parse_if},
    {"for", &Parser::parse_for},
    {"set", &Parser::parse_set},
    {"macro", &Parser::parse_macro},
    {"call", &Parser::parse_call_block},
    {"filter", &Parser::parse_filter_block},
    {"with", &Parser::parse_with},
    {"generation", &Parser::parse_generation},
    {"block", &Parser::parse_block},
    {"print", &Parser::parse_print},
    {"break", &Parser::parse_break},
    {"continue", &Parser::parse_continue},
}};

}  // namespace

Body parse_template(std::string_view source) {
  return Parser(tokenize(source)).parse();
}

}  // namespace chorus::jinja

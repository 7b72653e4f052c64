#include "jinja/content_format.h"

#include <functional>
#include <set>

namespace chorus::jinja {
namespace {

using Names = std::set<std::string, std::less<>>;

// Calls `take` with each statement of `body` and below, and the macro that it is in (nullptr: none).
using TakeStatement = std::function<void(const Statement&, const MacroDefinition*)>;
void for_each_statement(const Body& body, const MacroDefinition* macro, const TakeStatement& take) {
  for (const auto& statement : body) {
    take(*statement, macro);
    for (const auto& [condition, branch] : statement->branches) for_each_statement(branch, macro, take);
    for_each_statement(statement->body, macro, take);
    for_each_statement(statement->else_body, macro, take);
    const bool is_macro = statement->type == Statement::Type::macro;
    for_each_statement(statement->macro.body, is_macro ? &statement->macro : macro, take);
  }
}

using TakeExpression = std::function<void(const Expression&)>;
void for_each_expression(const Expression* expression, const TakeExpression& take) {
  if (expression == nullptr) return;
  take(*expression);
  for (const auto& child : expression->children) for_each_expression(child.get(), take);
  for (const auto& argument : expression->arguments.positional) for_each_expression(argument.get(), take);
  for (const auto& [name, argument] : expression->arguments.named) for_each_expression(argument.get(), take);
  for_each_expression(expression->arguments.star.get(), take);
  for_each_expression(expression->arguments.double_star.get(), take);
}

void for_each_expression(const Statement& statement, const TakeExpression& take) {
  for (const auto& expression : statement.expressions) for_each_expression(expression.get(), take);
  for (const auto& [condition, branch] : statement.branches) for_each_expression(condition.get(), take);
  for_each_expression(statement.condition.get(), take);
  for_each_expression(statement.filter.get(), take);
}

// What a filter, a test or a slice is applied to.
const Expression* unwrapped(const Expression* expression) {
  while (expression != nullptr) {
    const auto type = expression->type;
    const bool is_slice = type == Expression::Type::item && expression->children[1] != nullptr &&
                          expression->children[1]->type == Expression::Type::slice;
    if (type != Expression::Type::filter && type != Expression::Type::test && !is_slice) return expression;
    expression = expression->children[0].get();
  }
  return nullptr;
}

bool is_name_in(const Expression* expression, const Names& names) {
  return expression != nullptr && expression->type == Expression::Type::name && names.contains(expression->name);
}

bool is_content_of(const Expression* expression, const Names& messages) {
  expression = unwrapped(expression);
  if (expression == nullptr) return false;
  if (expression->type == Expression::Type::attribute) {
    return expression->name == "content" && is_name_in(expression->children[0].get(), messages);
  }
  if (expression->type != Expression::Type::item) return false;
  const Expression* key = expression->children[1].get();
  const bool is_content = key != nullptr && key->type == Expression::Type::constant && key->constant.is_string() &&
                          key->constant.string() == "content";
  return is_content && is_name_in(expression->children[0].get(), messages);
}

// `messages` and the variables that are set to it or to a part of it.
Names lists_of_messages(const Body& body) {
  Names names = {"messages"};
  for (std::size_t before = 0; before != names.size();) {
    before = names.size();
    for_each_statement(body, nullptr, [&](const Statement& statement, const MacroDefinition*) {
      if (statement.type != Statement::Type::assign || statement.targets.empty() || statement.expressions.empty())
        return;
      const Expression& target = *statement.targets[0];
      const bool is_plain = target.type == Expression::Type::name;
      if (is_plain && is_name_in(unwrapped(statement.expressions[0].get()), names)) names.insert(target.name);
    });
  }
  return names;
}

// The variables that go through such a list.
Names single_messages(const Body& body) {
  const Names lists = lists_of_messages(body);
  Names names;
  for_each_statement(body, nullptr, [&](const Statement& statement, const MacroDefinition*) {
    if (statement.type != Statement::Type::loop || statement.targets[0]->type != Expression::Type::name) return;
    if (is_name_in(unwrapped(statement.expressions[0].get()), lists)) names.insert(statement.targets[0]->name);
  });
  return names;
}

// The parameters of `macro` that some call gives a message's content.
Names content_parameters(const Body& body, const MacroDefinition& macro, const Names& messages) {
  Names names;
  const auto take = [&](const Expression& call) {
    if (call.type != Expression::Type::call || !is_name_in(call.children[0].get(), {macro.name})) return;
    const auto& positional = call.arguments.positional;
    for (std::size_t i = 0; i < positional.size() && i < macro.parameters.size(); ++i) {
      if (is_content_of(positional[i].get(), messages)) names.insert(macro.parameters[i].name);
    }
    for (const auto& [name, argument] : call.arguments.named) {
      if (is_content_of(argument.get(), messages)) names.insert(name);
    }
  };
  for_each_statement(body, nullptr,
                     [&](const Statement& statement, const MacroDefinition*) { for_each_expression(statement, take); });
  return names;
}

}  // namespace

bool loops_over_content(const Body& body) {
  const Names messages = single_messages(body);
  bool found = false;
  for_each_statement(body, nullptr, [&](const Statement& statement, const MacroDefinition* macro) {
    if (found || statement.type != Statement::Type::loop) return;
    const Expression* over = statement.expressions[0].get();
    const bool over_own_name =
        macro == nullptr ? is_name_in(over, {"content"}) : is_name_in(over, content_parameters(body, *macro, messages));
    found = over_own_name || is_content_of(over, messages);
  });
  return found;
}

}  // namespace chorus::jinja

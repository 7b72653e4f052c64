// Expressions: names, attributes, items, calls.
#include <array>

#include "jinja/builtins.h"
#include "jinja/interpreter.h"
#include "jinja/objects.h"
#include "jinja/operators.h"
#include "jinja/text.h"

namespace chorus::jinja {
namespace {

// object_type_repr of jinja2: how messages call a value.
std::string describe(const Value& value) {
  return value.is_none() ? "None" : value.type_name() + " object";
}

Value at_index(const Items& items, std::int64_t index, bool* found) {
  const auto size = static_cast<std::int64_t>(items.size());
  if (index < 0) index += size;
  *found = index >= 0 && index < size;
  return *found ? items[static_cast<std::size_t>(index)] : Value();
}

}  // namespace

Value Interpreter::evaluate(const Expression& expression, Scope* scope) {
  using Type = Expression::Type;
  budget_.step();
  const Budget::Level level(budget_);
  line_ = expression.line;
  const auto child = [&](std::size_t index) { return evaluate(*expression.children[index], scope); };
  switch (expression.type) {
    case Type::constant:
      return expression.constant;
    case Type::name:
      return evaluate_name(expression, scope);
    case Type::tuple:
      return Value::tuple(evaluate_all(expression.children, scope));
    case Type::list:
      return Value::list(evaluate_all(expression.children, scope));
    case Type::dict:
      return evaluate_dict(expression, scope);
    case Type::attribute:
      return attribute(child(0), expression.name);
    case Type::item:
      return evaluate_item(expression, scope);
    case Type::slice:
      raise("TypeError", "a slice stands only between square brackets");
    case Type::call: {
      const Value callee = child(0);
      Arguments arguments = evaluate_arguments(expression.arguments, scope);
      line_ = expression.line;
      return call(callee, std::move(arguments));
    }
    case Type::filter:
      return evaluate_filter(expression, scope);
    case Type::test: {
      if (find_test(expression.name) == nullptr)
        raise("TemplateAssertionError", "No test named '{}'.", expression.name);
      const Value value = child(0);
      return Value::of(call_test(expression.name, value, evaluate_arguments(expression.arguments, scope)));
    }
    case Type::conditional:
      return evaluate_conditional(expression, scope);
    case Type::logical_and: {
      Value left = child(0);
      return truth(left) ? child(1) : left;
    }
    case Type::logical_or: {
      Value left = child(0);
      return truth(left) ? left : child(1);
    }
    case Type::logical_not:
      return Value::of(!truth(child(0)));
    case Type::negate:
      return negate(child(0));
    case Type::plus:
      return plus(child(0));
    case Type::compare:
      return evaluate_compare(expression, scope);
    case Type::binary: {
      const Value left = child(0);
      return binary(expression.name, left, child(1), budget_);
    }
    case Type::concat:
      return evaluate_concat(expression, scope);
    case Type::namespace_attribute:
      break;
  }
  raise("TemplateRuntimeError", "not an expression");
}

Items Interpreter::evaluate_all(const std::vector<ExpressionPtr>& expressions, Scope* scope) {
  Items items(budget_);
  items.reserve(expressions.size());
  for (const ExpressionPtr& expression : expressions) items.push_back(evaluate(*expression, scope));
  return items;
}

Value Interpreter::evaluate_name(const Expression& expression, Scope* scope) {
  if (const Value* value = scope->find(expression.name, budget_)) return *value;
  if (auto global = find_global(expression.name, budget_)) return std::move(*global);
  return undefined(fmt::format("'{}' is undefined", expression.name));
}

Value Interpreter::evaluate_dict(const Expression& expression, Scope* scope) {
  Dict dict(budget_);
  for (std::size_t i = 0; i + 1 < expression.children.size(); i += 2) {
    Value key = evaluate(*expression.children[i], scope);
    dict.set(std::move(key), evaluate(*expression.children[i + 1], scope), budget_);
  }
  return Value::of(std::move(dict));
}

Value Interpreter::evaluate_item(const Expression& expression, Scope* scope) {
  const Value value = evaluate(*expression.children[0], scope);
  const Expression& key = *expression.children[1];
  if (key.type != Expression::Type::slice) return item(value, evaluate(key, scope));
  std::array<Value, 3> bounds;
  for (std::size_t i = 0; i < 3; ++i) {
    bounds[i] = key.children[i] ? evaluate(*key.children[i], scope) : Value::none();
  }
  if (value.is_undefined()) value.raise_undefined();
  if (auto part = slice(value, bounds[0], bounds[1], bounds[2], budget_)) return std::move(*part);
  if (value.is(Kind::dict)) raise("TypeError", "unhashable type: 'slice'");
  raise("TypeError", "'{}' object is not subscriptable", value.type_name());
}

Value Interpreter::evaluate_compare(const Expression& expression, Scope* scope) {
  Value left = evaluate(*expression.children[0], scope);
  for (std::size_t i = 0; i < expression.operators.size(); ++i) {
    Value right = evaluate(*expression.children[i + 1], scope);
    if (!compare(expression.operators[i], left, right, budget_)) return Value::of(false);
    left = std::move(right);
  }
  return Value::of(true);
}

Value Interpreter::evaluate_concat(const Expression& expression, Scope* scope) {
  String text(budget_);
  for (const Value& part : evaluate_all(expression.children, scope)) append_text(part, &text, budget_);
  return Value::of(std::move(text));
}

Value Interpreter::evaluate_conditional(const Expression& expression, Scope* scope) {
  if (truth(evaluate(*expression.children[0], scope))) return evaluate(*expression.children[1], scope);
  if (expression.children[2]) return evaluate(*expression.children[2], scope);
  return undefined("the inline if-expression evaluated to false and no else section was defined.");
}

Value Interpreter::evaluate_filter(const Expression& expression, Scope* scope) {
  if (find_filter(expression.name) == nullptr)
    raise("TemplateAssertionError", "No filter named '{}'.", expression.name);
  const Value input = evaluate(*expression.children[0], scope);
  const Arguments arguments = evaluate_arguments(expression.arguments, scope);
  line_ = expression.line;
  return call_filter(expression.name, input, arguments);
}

Arguments Interpreter::evaluate_arguments(const CallArguments& arguments, Scope* scope) {
  Arguments result(evaluate_all(arguments.positional, scope));
  for (const auto& [name, expression] : arguments.named)
    result.named.push_back({name, evaluate(*expression, scope), Value()});
  if (arguments.star) {
    for (Value& value : iterate(evaluate(*arguments.star, scope), budget_))
      result.positional.push_back(std::move(value));
  }
  if (arguments.double_star) {
    const Value more = evaluate(*arguments.double_star, scope);
    if (!more.is(Kind::dict)) raise("TypeError", "argument after ** must be a mapping, not {}", more.type_name());
    budget_.read_items(more.dict().size());
    for (const auto& [key, value] : more.dict().entries()) {
      if (!key.is_string()) raise("TypeError", "keywords must be strings");
      result.named.push_back({key.string(), value, key});
    }
  }
  return result;
}

Value Interpreter::missing(const Value& value, const Value& key) {
  budget_.step(2);
  if (key.is_string()) return undefined(fmt::format("'{}' has no attribute {}", describe(value), shown(key.string())));
  String text(budget_);
  text.append(describe(value)).append(" has no element ");
  append_repr(key, &text, budget_);
  return Value::undefined(std::move(text), strict_);
}

Value Interpreter::attribute(const Value& value, std::string_view name) {
  if (value.is_undefined()) value.raise_undefined();
  if (is_unsafe_method(value, name) || name.starts_with("__")) {
    const std::string message =
        fmt::format("access to attribute {} of '{}' object is unsafe.", shown(name), value.type_name());
    return Value::undefined(String(message, budget_), strict_, "SecurityError");
  }
  if (const Function* method = find_method(value, name)) return bind_method(value, method, budget_);
  if (value.is(Kind::dict)) {
    if (const Value* found = value.dict().find(name, budget_)) return *found;
  }
  if (value.is(Kind::object)) {
    if (auto found = value.object()->attribute(*this, name)) return std::move(*found);
  }
  // groupby's tuples have names for their two items.
  if (value.is(Kind::tuple) && value.items().size() == 2 && (name == "grouper" || name == "list")) {
    return value.items()[name == "list" ? 1 : 0];
  }
  return missing(value, Value::of(name, budget_));
}

Value Interpreter::item(const Value& value, const Value& key) {
  budget_.step();
  if (value.is_undefined()) value.raise_undefined();
  if (value.is(Kind::dict)) {
    const bool hashable = !key.is(Kind::list) && !key.is(Kind::dict);
    if (const Value* found = hashable ? value.dict().find(key, budget_) : nullptr) return *found;
  } else if (key.is_integral()) {
    bool found = false;
    if (value.is_sequence()) {
      Value element = at_index(value.items(), key.index(), &found);
      if (found) return element;
    } else if (value.is_string() && key.integer() < INT64_MAX) {
      const auto part =
          slice(value, key, key.index() == -1 ? Value::none() : Value::of(key.index() + 1), Value::none(), budget_);
      if (part && !part->string().empty()) return *part;
    } else if (const auto range = value.object_as<Range>()) {
      const auto size = static_cast<std::int64_t>(*range->length());
      const std::int64_t index = key.index() < 0 ? key.index() + size : key.index();
      if (index >= 0 && index < size) return Value::of(range->at(static_cast<std::size_t>(index)));
    }
  } else if (key.is_undefined() && strict_) {
    key.raise_undefined();
  }
  if (!key.is_string()) return missing(value, key);
  if (value.is(Kind::dict) && find_method(value, key.string()) == nullptr && !is_unsafe_method(value, key.string())) {
    return missing(value, key);
  }
  return attribute(value, key.string());
}

Value Interpreter::call(const Value& callee, Arguments arguments) {
  budget_.step();
  if (callee.is_undefined()) callee.raise_undefined();
  if (!callee.is(Kind::object)) raise("TypeError", "'{}' object is not callable", callee.type_name());
  return callee.object()->call(*this, std::move(arguments));
}

Value Interpreter::call_filter(std::string_view name, const Value& input, const Arguments& arguments) {
  const Budget::Level level(budget_);
  const Function* filter = find_filter(name);
  if (filter == nullptr) raise("TemplateRuntimeError", "No filter named {}.", shown(name));
  return apply(*filter, *this, input, arguments);
}

bool Interpreter::call_test(std::string_view name, const Value& input, const Arguments& arguments) {
  const Test* test = find_test(name);
  if (test == nullptr) raise("TemplateRuntimeError", "No test named {}.", shown(name));
  return apply(*test, *this, input, arguments);
}

}  // namespace chorus::jinja

// Statements, scopes and macros; expressions are in jinja_evaluate.cc.
#include "jinja/interpreter.h"

#include <nlohmann/json.hpp>

#include "jinja/builtins.h"
#include "jinja/loop.h"
#include "jinja/objects.h"
#include "jinja/text.h"

namespace chorus::jinja {
namespace {

void capture(Scope* scope) {
  for (; scope != nullptr && !scope->captured; scope = scope->parent) scope->captured = true;
}

}  // namespace

void Scope::set(std::string_view name, Value value, Budget& budget) {
  budget.compare_names(variables.size());
  for (auto& [known, current] : variables) {
    if (known != name) continue;
    current = std::move(value);
    return;
  }
  variables.emplace_back(name, std::move(value));
}

const Value* Scope::find(std::string_view name, Budget& budget) const {
  std::size_t read = 0;
  const Value* found = nullptr;
  for (const Scope* scope = this; scope != nullptr && found == nullptr; scope = scope->parent) {
    read += scope->variables.size() + 1;
    for (const auto& [known, value] : scope->variables) {
      if (known != name) continue;
      found = &value;
      break;
    }
  }
  budget.compare_names(read);
  return found;
}

// A scope for the length of a block; a captured one moves to the interpreter at the end.
class Interpreter::ScopeGuard {
 public:
  ScopeGuard(Interpreter* interpreter, Scope* parent)
      : interpreter_(interpreter), scope_(std::make_unique<Scope>(parent, interpreter->budget_)) {}
  ~ScopeGuard() {
    if (!scope_->captured) return;
    scope_->kept = std::move(interpreter_->kept_);
    interpreter_->kept_ = std::move(scope_);
  }
  ScopeGuard(const ScopeGuard&) = delete;
  ScopeGuard& operator=(const ScopeGuard&) = delete;
  Scope* get() const { return scope_.get(); }
  void set(std::string_view name, Value value) { scope_->set(name, std::move(value), interpreter_->budget_); }

 private:
  Interpreter* interpreter_;
  std::unique_ptr<Scope> scope_;
};

// Output goes to a string of its own while this lives.
class Interpreter::Capture {
 public:
  explicit Capture(Interpreter* interpreter)
      : text(interpreter->budget_), interpreter_(interpreter), before_(interpreter->out_) {
    interpreter_->out_ = &text;
  }
  ~Capture() { interpreter_->out_ = before_; }
  Capture(const Capture&) = delete;
  Capture& operator=(const Capture&) = delete;
  String text;

 private:
  Interpreter* interpreter_;
  String* before_;
};

Interpreter::~Interpreter() {
  for (const auto& object : namespaces_) object->clear(budget_);
  for (const auto& cell : cells_) cell->items.clear();
  while (kept_ != nullptr) kept_ = std::move(kept_->kept);
}

std::string Interpreter::render(const Body& body, const Json& variables) {
  try {
    const ScopeGuard globals(this, nullptr);
    for (const auto& [name, value] : variables.items())
      globals.get()->variables.emplace_back(name, Value::from_json(value, budget_));
    const ScopeGuard top(this, globals.get());
    return std::string(captured_run(body, top.get()));
  } catch (TemplateError& error) {
    if (error.line == 0) error.line = line_;
    throw;
  }
}

String Interpreter::captured_run(const Body& body, Scope* scope) {
  Capture capture(this);
  run(body, scope);
  return std::move(capture.text);
}

void Interpreter::write(std::string_view text) {
  budget_.read_bytes(text.size());
  out_->append(text);
}

void Interpreter::print(const Value& value) {
  append_text(value, out_, budget_);
}

Interpreter::Flow Interpreter::run(const Body& body, Scope* scope) {
  const Budget::Level level(budget_);
  for (const auto& statement : body) {
    const Flow flow = run(*statement, scope);
    if (flow != Flow::next) return flow;
  }
  return Flow::next;
}

Interpreter::Flow Interpreter::run(const Statement& statement, Scope* scope) {
  using Type = Statement::Type;
  budget_.step();
  line_ = statement.line;
  switch (statement.type) {
    case Type::data:
      write(statement.text);
      break;
    case Type::print:
      for (const ExpressionPtr& expression : statement.expressions) print(evaluate(*expression, scope));
      break;
    case Type::branch:
      return run_branch(statement, scope);
    case Type::loop:
      run_loop(statement, scope, evaluate(*statement.expressions[0], scope), 0);
      break;
    case Type::assign:
      assign(*statement.targets[0], evaluate(*statement.expressions[0], scope), scope);
      break;
    case Type::assign_block: {
      const ScopeGuard inner(this, scope);
      String text = captured_run(statement.body, inner.get());
      const Value value = statement.filter ? filter_through(*statement.filter, std::move(text), inner.get())
                                           : Value::of(std::move(text));
      assign(*statement.targets[0], value, scope);
      break;
    }
    case Type::macro:
      scope->set(statement.macro.name, macro_value(statement.macro, scope), budget_);
      break;
    case Type::call:
      run_call_block(statement, scope);
      break;
    case Type::filter_block: {
      const ScopeGuard inner(this, scope);
      const Value value = filter_through(*statement.filter, captured_run(statement.body, inner.get()), inner.get());
      if (!value.is_string()) raise("TypeError", "expected str instance, {} found", value.type_name());
      print(value);
      break;
    }
    case Type::with:
      run_with(statement, scope);
      break;
    case Type::scope: {
      const ScopeGuard inner(this, scope);
      return run(statement.body, inner.get());
    }
    case Type::break_loop:
      return Flow::break_loop;
    case Type::continue_loop:
      return Flow::continue_loop;
  }
  return Flow::next;
}

Interpreter::Flow Interpreter::run_branch(const Statement& statement, Scope* scope) {
  for (const auto& [condition, body] : statement.branches) {
    if (truth(evaluate(*condition, scope))) return run(body, scope);
  }
  return run(statement.body, scope);
}

void Interpreter::run_loop(const Statement& statement, Scope* scope, const Value& iterable, int depth) {
  if (statement.condition || statement.recursive) capture(scope);  // the loop object refers to it
  auto loop = make_object<Loop>(budget_, &statement, this, scope, iterate(iterable, budget_), depth);
  bool any = false;  // an iteration ran to its end: jinja2 goes by that for else, so break and continue do not count
  while (auto item = loop->advance()) {
    budget_.step(2);
    ScopeGuard inner(this, scope);
    inner.set("loop", Value::of(loop));
    assign(*statement.targets[0], *item, inner.get());
    const Flow flow = run(statement.body, inner.get());
    if (flow == Flow::break_loop) break;
    any |= flow == Flow::next;
    line_ = statement.line;
  }
  if (any) return;
  const ScopeGuard inner(this, scope);
  run(statement.else_body, inner.get());
}

Value Interpreter::run_recursive(const Statement& loop, Scope* outer, const Value& iterable, int depth) {
  const Budget::Level level(budget_);
  Capture capture(this);
  run_loop(loop, outer, iterable, depth);
  return Value::of(std::move(capture.text));
}

bool Interpreter::loop_condition(const Statement& loop, Scope* outer, const Value& item) {
  const ScopeGuard inner(this, outer);
  assign(*loop.targets[0], item, inner.get());
  return truth(evaluate(*loop.condition, inner.get()));
}

void Interpreter::run_call_block(const Statement& statement, Scope* scope) {
  const Expression& call_expression = *statement.expressions[0];
  const Value callee = evaluate(*call_expression.children[0], scope);
  Arguments arguments = evaluate_arguments(call_expression.arguments, scope);
  arguments.named.push_back({"caller", macro_value(statement.macro, scope), Value()});
  print(call(callee, std::move(arguments)));
}

void Interpreter::run_with(const Statement& statement, Scope* scope) {
  const ScopeGuard inner(this, scope);
  const Items values = evaluate_all(statement.expressions, scope);
  for (std::size_t i = 0; i < values.size(); ++i) assign(*statement.targets[i], values[i], inner.get());
  run(statement.body, inner.get());
}

void Interpreter::assign(const Expression& target, const Value& value, Scope* scope) {
  if (target.type == Expression::Type::name) return scope->set(target.name, value, budget_);
  if (target.type == Expression::Type::namespace_attribute) {
    const Value* holder = scope->find(target.name, budget_);
    const auto object = holder != nullptr ? holder->object_as<Namespace>() : nullptr;
    if (object == nullptr) raise("TemplateRuntimeError", "cannot assign attribute on non-namespace object");
    return object->set(target.attribute_name, value, budget_);
  }
  if (!is_iterable(value)) raise("TypeError", "cannot unpack non-iterable {} object", value.type_name());
  const Items items = iterate(value, budget_);
  const std::size_t wanted = target.children.size();
  if (items.size() > wanted) raise("ValueError", "too many values to unpack (expected {})", wanted);
  if (items.size() < wanted)
    raise("ValueError", "not enough values to unpack (expected {}, got {})", wanted, items.size());
  for (std::size_t i = 0; i < wanted; ++i) assign(*target.children[i], items[i], scope);
}

Value Interpreter::macro_value(const MacroDefinition& macro, Scope* scope) {
  capture(scope);
  return Value::of(make_object<Macro>(budget_, &macro, scope));
}

namespace {

// Takes a named argument out into *value; false if it was not given.
bool take(Arguments* arguments, std::string_view name, Value* value, Budget& budget) {
  budget.read_items(arguments->named.size());
  for (auto it = arguments->named.begin(); it != arguments->named.end(); ++it) {
    if (it->name != name) continue;
    *value = std::move(it->value);
    arguments->named.erase(it);
    return true;
  }
  return false;
}

Value dict_of(const Arguments& arguments, Budget& budget) {
  Dict dict(budget);
  for (const Argument& argument : arguments.named) dict.set(Value::of(argument.name, budget), argument.value, budget);
  return Value::of(std::move(dict));
}

}  // namespace

Value Interpreter::call_macro(const MacroDefinition& macro, Scope* defined_in, Arguments arguments) {
  const Budget::Level level(budget_);
  ScopeGuard scope(this, defined_in);
  bool has_caller_parameter = false;
  std::size_t used = 0;
  for (const Parameter& parameter : macro.parameters) {
    budget_.step();
    has_caller_parameter |= parameter.name == "caller";
    if (used < arguments.positional.size()) {
      scope.set(parameter.name, arguments.positional[used++]);
    } else if (Value given; take(&arguments, parameter.name, &given, budget_)) {
      scope.set(parameter.name, std::move(given));
    } else if (parameter.default_value) {
      scope.set(parameter.name, evaluate(*parameter.default_value, scope.get()));
    } else {
      scope.set(parameter.name, undefined(fmt::format("parameter '{}' was not provided", parameter.name)));
    }
  }
  if (macro.uses_caller && !has_caller_parameter) {
    Value caller = undefined("No caller defined");
    take(&arguments, "caller", &caller, budget_);
    scope.set("caller", std::move(caller));
  }
  if (macro.uses_kwargs) {
    scope.set("kwargs", dict_of(arguments, budget_));
  } else if (!arguments.named.empty()) {
    raise("TypeError", "macro '{}' takes no keyword argument {}", macro.name, shown(arguments.named[0].name));
  }
  if (macro.uses_varargs) {
    Items rest(arguments.positional.begin() + static_cast<std::ptrdiff_t>(used), arguments.positional.end(), budget_);
    scope.set("varargs", Value::tuple(std::move(rest)));
  } else if (used < arguments.positional.size()) {
    raise("TypeError", "macro '{}' takes not more than {} argument(s)", macro.name, macro.parameters.size());
  }
  const int line = line_;
  Value result = Value::of(captured_run(macro.body, scope.get()));
  line_ = line;
  return result;
}

Value Interpreter::filter_through(const Expression& filter, String text, Scope* scope) {
  const Budget::Level level(budget_);
  // The innermost filter of the chain has no input of its own.
  const Expression* inner = filter.children[0].get();
  const Value input = inner != nullptr ? filter_through(*inner, std::move(text), scope) : Value::of(std::move(text));
  return call_filter(filter.name, input, evaluate_arguments(filter.arguments, scope));
}

}  // namespace chorus::jinja

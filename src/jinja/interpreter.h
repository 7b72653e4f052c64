// Runs a parsed template. One Interpreter renders once; it owns the scopes and whatever they hold.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "jinja/ast.h"
#include "jinja/budget.h"
#include "jinja/value.h"

namespace chorus::jinja {

class Namespace;

// Values that an object takes after it was made. The interpreter owns it and empties it at the end of the render, so
// that no cycle outlives that, and no chain of such objects is destroyed by recursion.
struct Cell {
  explicit Cell(Items values) : items(std::move(values)) {}
  Items items;
};

// Names set in one block; reads go outward, writes stay. The names are the template's or those of the variables.
struct Scope {
  Scope(Scope* outer, Budget& budget) : parent(outer), variables(budget), held(budget, sizeof(Scope)) {}
  Scope* parent;
  Vector<std::pair<std::string_view, Value>> variables;
  bool captured = false;        // a macro was defined below it and may be called after its end
  std::unique_ptr<Scope> kept;  // the next one in the interpreter's list of captured scopes
  Budget::Held held;

  void set(std::string_view name, Value value, Budget& budget);
  const Value* find(std::string_view name, Budget& budget) const;  // here and outward
};

class Interpreter {
 public:
  Interpreter(const TemplateLimits& limits, bool strict, std::int64_t now_unix_s)
      : budget_(limits), strict_(strict), now_unix_s_(now_unix_s), namespaces_(budget_), cells_(budget_) {}
  ~Interpreter();
  Interpreter(const Interpreter&) = delete;
  Interpreter& operator=(const Interpreter&) = delete;

  // Throws TemplateError with its line.
  std::string render(const Body& body, const Json& variables);

  // What filters, tests, methods and objects use.
  Budget& budget() { return budget_; }
  std::int64_t now_unix_s() const { return now_unix_s_; }
  Value undefined(std::string_view message) { return Value::undefined(String(message, budget_), strict_); }
  Value attribute(const Value& value, std::string_view name);  // value.name
  Value item(const Value& value, const Value& key);            // value[key]
  Value call(const Value& callee, Arguments arguments);
  Value call_filter(std::string_view name, const Value& input, const Arguments& arguments);
  bool call_test(std::string_view name, const Value& input, const Arguments& arguments);
  void own(std::shared_ptr<Namespace> object) { namespaces_.push_back(std::move(object)); }
  void own(std::shared_ptr<Cell> cell) { cells_.push_back(std::move(cell)); }

  // What macros and loops use.
  Value call_macro(const MacroDefinition& macro, Scope* defined_in, Arguments arguments);
  Value run_recursive(const Statement& loop, Scope* outer, const Value& iterable, int depth);
  bool loop_condition(const Statement& loop, Scope* outer, const Value& item);

 private:
  enum class Flow { next, break_loop, continue_loop };
  class ScopeGuard;
  class Capture;

  Flow run(const Body& body, Scope* scope);
  Flow run(const Statement& statement, Scope* scope);
  Flow run_branch(const Statement& statement, Scope* scope);
  void run_loop(const Statement& statement, Scope* scope, const Value& iterable, int depth);
  void run_call_block(const Statement& statement, Scope* scope);
  void run_with(const Statement& statement, Scope* scope);
  String captured_run(const Body& body, Scope* scope);
  void print(const Value& value);
  void write(std::string_view text);
  void assign(const Expression& target, const Value& value, Scope* scope);
  Value macro_value(const MacroDefinition& macro, Scope* scope);

  Value evaluate(const Expression& expression, Scope* scope);
  Value evaluate_name(const Expression& expression, Scope* scope);
  Value evaluate_dict(const Expression& expression, Scope* scope);
  Value evaluate_item(const Expression& expression, Scope* scope);
  Value evaluate_compare(const Expression& expression, Scope* scope);
  Value evaluate_concat(const Expression& expression, Scope* scope);
  Value evaluate_conditional(const Expression& expression, Scope* scope);
  Value evaluate_filter(const Expression& expression, Scope* scope);
  Items evaluate_all(const std::vector<ExpressionPtr>& expressions, Scope* scope);
  Arguments evaluate_arguments(const CallArguments& arguments, Scope* scope);
  Value missing(const Value& value, const Value& key);
  Value filter_through(const Expression& filter, String text, Scope* scope);

  Budget budget_;  // first, so that it outlives all that was taken from it
  bool strict_;
  std::int64_t now_unix_s_;
  int line_ = 0;
  String* out_ = nullptr;
  std::unique_ptr<Scope> kept_;  // captured scopes
  Vector<std::shared_ptr<Namespace>> namespaces_;
  Vector<std::shared_ptr<Cell>> cells_;
};

}  // namespace chorus::jinja

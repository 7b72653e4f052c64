// Runs a parsed template. One Interpreter renders once; it owns the scopes and whatever they hold.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "jinja/ast.h"
#include "jinja/error.h"
#include "jinja/value.h"

namespace chorus::jinja {

class Namespace;

// Names set in one block; reads go outward, writes stay.
struct Scope {
  Scope* parent = nullptr;
  std::vector<std::pair<std::string, Value>> variables;
  bool captured = false;  // a macro was defined below it and may be called after its end

  void set(std::string_view name, Value value);
  const Value* find(std::string_view name) const;  // here and outward
};

class Interpreter {
 public:
  Interpreter(const TemplateLimits& limits, bool strict, std::int64_t now_unix_s)
      : budget_(limits), strict_(strict), now_unix_s_(now_unix_s) {}
  ~Interpreter();
  Interpreter(const Interpreter&) = delete;
  Interpreter& operator=(const Interpreter&) = delete;

  // Throws TemplateError with its line.
  std::string render(const Body& body, const Json& variables);

  // What filters, tests, methods and objects use.
  Budget& budget() { return budget_; }
  std::int64_t now_unix_s() const { return now_unix_s_; }
  Value undefined(std::string message) const { return Value::undefined(std::move(message), strict_); }
  Value attribute(const Value& value, std::string_view name);  // value.name
  Value item(const Value& value, const Value& key);            // value[key]
  Value call(const Value& callee, Arguments arguments);
  Value call_filter(std::string_view name, const Value& input, const Arguments& arguments);
  bool call_test(std::string_view name, const Value& input, const Arguments& arguments);
  void own(std::shared_ptr<Namespace> object) { namespaces_.push_back(std::move(object)); }

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
  std::string captured_run(const Body& body, Scope* scope);
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
  Value missing(const Value& value, const Value& key) const;
  Value filter_through(const Expression& filter, std::string text, Scope* scope);

  Budget budget_;
  bool strict_;
  std::int64_t now_unix_s_;
  int line_ = 0;
  std::string* out_ = nullptr;
  std::vector<std::unique_ptr<Scope>> kept_;            // captured scopes
  std::vector<std::shared_ptr<Namespace>> namespaces_;  // emptied at the end: they may hold each other
};

}  // namespace chorus::jinja

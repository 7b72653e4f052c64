// The `loop` variable and the iteration behind it, and macros as values.
#pragma once

#include <optional>
#include <string>

#include "jinja/interpreter.h"

namespace chorus::jinja {

// Gives a loop's items one by one. The loop's own condition is asked only when an item is reached, as in jinja2: the
// body may change a namespace that the condition reads.
class Loop : public Object {
 public:
  Loop(const Statement* statement, Interpreter* interpreter, Scope* outer, Items items, int depth)
      : Object(depth_of(items)),
        statement_(statement),
        interpreter_(interpreter),
        outer_(outer),
        items_(std::move(items)),
        depth0_(depth) {}
  const char* type_name() const override { return "LoopContext"; }
  void repr(String* out, Budget&) const override {
    const std::int64_t count = const_cast<Loop*>(this)->count_all();
    out->append(std::string_view(fmt::format("<LoopContext {}/{}>", index0_ + 1, count)));
  }
  std::optional<Value> attribute(Interpreter& interpreter, std::string_view name) override;
  bool is_callable() const override { return true; }
  Value call(Interpreter& interpreter, Arguments arguments) override;  // loop(items) of a recursive loop
  std::optional<Value> advance();                                      // the next item; nullopt at the end
  Value cycle(const Items& values) const;
  bool changed(const Items& values);

 private:
  std::optional<Value> pull();
  const std::optional<Value>& peek();
  std::int64_t count_all();

  const Statement* statement_;
  Interpreter* interpreter_;
  Scope* outer_;
  Items items_;
  int depth0_;
  std::size_t at_ = 0;
  std::int64_t index0_ = -1;
  bool condition_done_ = false;
  std::optional<Value> before_;
  std::optional<Value> current_;
  std::optional<Value> after_;
  bool peeked_ = false;
  std::shared_ptr<Cell> last_changed_;  // the interpreter's: what is in it may be this loop
};

class Macro : public Object {
 public:
  Macro(const MacroDefinition* definition, Scope* scope) : definition_(definition), scope_(scope) {}
  const char* type_name() const override { return "Macro"; }
  void repr(String* out, Budget&) const override { out->append("<Macro '").append(definition_->name).append("'>"); }
  bool is_callable() const override { return true; }
  std::optional<Value> attribute(Interpreter& interpreter, std::string_view name) override;
  Value call(Interpreter& interpreter, Arguments arguments) override {
    return interpreter.call_macro(*definition_, scope_, std::move(arguments));
  }

 private:
  const MacroDefinition* definition_;
  Scope* scope_;  // captured: lives as long as the interpreter
};

}  // namespace chorus::jinja

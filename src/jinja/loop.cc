#include "jinja/loop.h"

namespace chorus::jinja {
namespace {

// loop.cycle and loop.changed.
class LoopMethod : public Object {
 public:
  LoopMethod(std::shared_ptr<Loop> loop, bool is_cycle)
      : Object(loop->depth()), loop_(std::move(loop)), is_cycle_(is_cycle) {}
  const char* type_name() const override { return "method"; }
  bool is_callable() const override { return true; }
  Value call(Interpreter&, Arguments arguments) override {
    return is_cycle_ ? loop_->cycle(arguments.positional) : Value::of(loop_->changed(arguments.positional));
  }

 private:
  std::shared_ptr<Loop> loop_;
  bool is_cycle_;
};

}  // namespace

std::optional<Value> Loop::pull() {
  while (at_ < items_.size()) {
    const Value& item = items_[at_++];
    if (condition_done_ || !statement_->condition || interpreter_->loop_condition(*statement_, outer_, item))
      return item;
  }
  return std::nullopt;
}

const std::optional<Value>& Loop::peek() {
  if (!peeked_) {
    after_ = pull();
    peeked_ = true;
  }
  return after_;
}

std::optional<Value> Loop::advance() {
  std::optional<Value> item = peek();
  peeked_ = false;
  after_.reset();
  if (!item) return item;
  ++index0_;
  before_ = std::move(current_);
  current_ = item;
  return item;
}

// loop.length: jinja2 reads the whole rest for it, conditions included.
std::int64_t Loop::count_all() {
  if (statement_->condition && !condition_done_) {
    Items rest(interpreter_->budget());
    while (auto item = pull()) rest.push_back(std::move(*item));
    items_ = std::move(rest);
    at_ = 0;
    condition_done_ = true;
  }
  return index0_ + 1 + (peeked_ && after_ ? 1 : 0) + static_cast<std::int64_t>(items_.size() - at_);
}

std::optional<Value> Loop::attribute(Interpreter& interpreter, std::string_view name) {
  if (name == "index0") return Value::of(index0_);
  if (name == "index") return Value::of(index0_ + 1);
  if (name == "first") return Value::of(index0_ == 0);
  if (name == "last") return Value::of(!peek().has_value());
  if (name == "length") return Value::of(count_all());
  if (name == "revindex") return Value::of(count_all() - index0_);
  if (name == "revindex0") return Value::of(count_all() - index0_ - 1);
  if (name == "depth0") return Value::of(depth0_);
  if (name == "depth") return Value::of(depth0_ + 1);
  if (name == "previtem") return before_ ? *before_ : interpreter.undefined("there is no previous item");
  if (name == "nextitem") return peek() ? *peek() : interpreter.undefined("there is no next item");
  if (name != "cycle" && name != "changed") return std::nullopt;
  auto self = std::static_pointer_cast<Loop>(shared_from_this());
  return Value::of(make_object<LoopMethod>(interpreter.budget(), std::move(self), name == "cycle"));
}

Value Loop::call(Interpreter& interpreter, Arguments arguments) {
  if (!statement_->recursive) {
    raise("TypeError", "The loop must have the 'recursive' marker to be called recursively.");
  }
  if (arguments.positional.size() != 1) raise("TypeError", "loop() takes one iterable");
  return interpreter.run_recursive(*statement_, outer_, arguments.positional[0], depth0_ + 1);
}

Value Loop::cycle(const Items& values) const {
  if (values.empty()) raise("TypeError", "no items for cycling given");
  return values[static_cast<std::size_t>(index0_) % values.size()];
}

bool Loop::changed(const Items& values) {
  Budget& budget = interpreter_->budget();
  const bool first = last_changed_ == nullptr;
  if (first) {
    last_changed_ = make_object<Cell>(budget, Items(budget));
    interpreter_->own(last_changed_);
  }
  const Value now = Value::tuple(Items(values, budget));
  const bool same = !first && equal(Value::tuple(Items(last_changed_->items, budget)), now, budget);
  last_changed_->items = now.items();
  return !same;
}

std::optional<Value> Macro::attribute(Interpreter& interpreter, std::string_view name) {
  Budget& budget = interpreter.budget();
  if (name == "name") return Value::of(definition_->name, budget);
  if (name == "catch_kwargs") return Value::of(definition_->uses_kwargs);
  if (name == "catch_varargs") return Value::of(definition_->uses_varargs);
  if (name == "caller") return Value::of(definition_->uses_caller);
  if (name != "arguments") return std::nullopt;
  Items names(budget);
  for (const Parameter& parameter : definition_->parameters) names.push_back(Value::of(parameter.name, budget));
  return Value::tuple(std::move(names));
}

}  // namespace chorus::jinja

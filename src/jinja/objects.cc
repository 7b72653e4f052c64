#include "jinja/objects.h"

namespace chorus::jinja {

std::string Range::repr(Budget&) const {
  const std::int64_t end = begin_ + static_cast<std::int64_t>(count_) * step_;
  return step_ == 1 ? fmt::format("range({}, {})", begin_, end) : fmt::format("range({}, {}, {})", begin_, end, step_);
}

Items Range::iterate(Budget& budget) {
  budget.list_of(count_);
  Items items;
  for (std::size_t i = 0; i < count_; ++i) items.push_back(Value::of(at(i)));
  return items;
}

Items Generator::iterate(Budget& budget) {
  budget.list_of(items_.size());
  Items rest(items_.begin() + static_cast<std::ptrdiff_t>(at_), items_.end());
  at_ = items_.size();
  return rest;
}

std::optional<Value> Generator::next() {
  if (at_ == items_.size()) return std::nullopt;
  return items_[at_++];
}

Value make_generator(Items items, const char* type) {
  return Value::of(std::make_shared<Generator>(std::move(items), type));
}

Items DictView::iterate(Budget& budget) {
  budget.list_of(items_.size());
  return items_;
}

std::string Namespace::repr(Budget& budget) const {
  return fmt::format("<Namespace {}>", jinja::repr(Value::of(values_), budget));
}

std::optional<Value> Namespace::attribute(std::string_view name) {
  const Value* value = values_.find(name);
  return value != nullptr ? std::optional<Value>(*value) : std::nullopt;
}

namespace {

// cycler.next and cycler.reset: they share the cycler's state.
class CyclerMethod : public Object {
 public:
  CyclerMethod(std::shared_ptr<Cycler> cycler, bool is_next) : cycler_(std::move(cycler)), is_next_(is_next) {}
  const char* type_name() const override { return "method"; }
  bool is_callable() const override { return true; }
  Value call(Interpreter&, Arguments) override {
    if (is_next_) return cycler_->next();
    cycler_->reset();
    return Value::none();
  }

 private:
  std::shared_ptr<Cycler> cycler_;
  bool is_next_;
};

}  // namespace

Value Cycler::next() {
  const Value value = items_[at_];
  at_ = (at_ + 1) % items_.size();
  return value;
}

std::optional<Value> Cycler::attribute(std::string_view name) {
  if (name == "current") return items_[at_];
  if (name != "next" && name != "reset") return std::nullopt;
  auto self = std::static_pointer_cast<Cycler>(shared_from_this());
  return Value::of(std::make_shared<CyclerMethod>(std::move(self), name == "next"));
}

Value Joiner::call(Interpreter&, Arguments) {
  if (used_) return separator_;
  used_ = true;
  return Value::of("");
}

}  // namespace chorus::jinja

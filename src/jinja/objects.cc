#include "jinja/objects.h"

#include <algorithm>

#include "jinja/interpreter.h"

namespace chorus::jinja {

void Range::repr(String* out, Budget&) const {
  const __int128 past = begin_ + static_cast<__int128>(count_) * step_;
  const auto end = static_cast<std::int64_t>(std::clamp<__int128>(past, INT64_MIN, INT64_MAX));
  out->append(std::string_view(step_ == 1 ? fmt::format("range({}, {})", begin_, end)
                                          : fmt::format("range({}, {}, {})", begin_, end, step_)));
}

Items Range::iterate(Budget& budget) {
  budget.read_items(count_);
  Items items(budget);
  items.reserve(count_);
  for (std::size_t i = 0; i < count_; ++i) items.push_back(Value::of(at(i)));
  return items;
}

Items Generator::iterate(Budget& budget) {
  budget.read_items(items_.size());
  Items rest(items_.begin() + static_cast<std::ptrdiff_t>(at_), items_.end(), budget);
  at_ = items_.size();
  return rest;
}

std::optional<Value> Generator::next() {
  if (at_ == items_.size()) return std::nullopt;
  return items_[at_++];
}

Value make_generator(Items items, const char* type) {
  Budget& budget = *items.get_allocator().budget();
  return Value::of(make_object<Generator>(budget, std::move(items), type));
}

Items DictView::iterate(Budget& budget) {
  budget.read_items(items_.size());
  return Items(items_, budget);
}

void Namespace::repr(String* out, Budget& budget) const {
  out->append("<Namespace ");
  append_repr(Value::of(Dict(values_)), out, budget);
  out->append(">");
}

std::optional<Value> Namespace::attribute(Interpreter& interpreter, std::string_view name) {
  const Value* value = values_.find(name, interpreter.budget());
  return value != nullptr ? std::optional<Value>(*value) : std::nullopt;
}

namespace {

// cycler.next and cycler.reset: they share the cycler's state.
class CyclerMethod : public Object {
 public:
  CyclerMethod(std::shared_ptr<Cycler> cycler, bool is_next)
      : Object(cycler->depth()), cycler_(std::move(cycler)), is_next_(is_next) {}
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

std::optional<Value> Cycler::attribute(Interpreter& interpreter, std::string_view name) {
  if (name == "current") return items_[at_];
  if (name != "next" && name != "reset") return std::nullopt;
  auto self = std::static_pointer_cast<Cycler>(shared_from_this());
  return Value::of(make_object<CyclerMethod>(interpreter.budget(), std::move(self), name == "next"));
}

Value Joiner::call(Interpreter& interpreter, Arguments) {
  if (used_) return separator_;
  used_ = true;
  return Value::of("", interpreter.budget());
}

}  // namespace chorus::jinja

// The stateful and lazy objects that need no interpreter: range, generator, dict views, namespace, cycler, joiner.
#pragma once

#include <string_view>
#include <utility>

#include "jinja/value.h"

namespace chorus::jinja {

class Range : public Object {
 public:
  Range(std::int64_t begin, std::int64_t step, std::size_t count) : begin_(begin), step_(step), count_(count) {}
  const char* type_name() const override { return "range"; }
  void repr(String* out, Budget& budget) const override;
  bool is_iterable() const override { return true; }
  Items iterate(Budget& budget) override;
  std::optional<std::size_t> length() const override { return count_; }
  bool is_subscriptable() const override { return true; }
  std::int64_t step() const { return step_; }
  std::int64_t begin() const { return begin_; }
  std::int64_t at(std::size_t index) const {  // below count_, so it is between begin and end
    return static_cast<std::int64_t>(begin_ + static_cast<__int128>(index) * step_);
  }

 private:
  std::int64_t begin_;
  std::int64_t step_;
  std::size_t count_;
};

// What jinja2's lazy filters give: its items come once, it has no length and no JSON.
class Generator : public Object {
 public:
  explicit Generator(Items items, const char* type = "generator")
      : Object(depth_of(items)), items_(std::move(items)), type_(type) {}
  const char* type_name() const override { return type_; }
  bool is_iterable() const override { return true; }
  Items iterate(Budget& budget) override;
  std::optional<Value> next();

 private:
  Items items_;
  const char* type_;
  std::size_t at_ = 0;
};
Value make_generator(Items items, const char* type = "generator");

class DictView : public Object {
 public:
  DictView(Items items, const char* type) : Object(depth_of(items)), items_(std::move(items)), type_(type) {}
  const char* type_name() const override { return type_; }
  bool is_iterable() const override { return true; }
  Items iterate(Budget& budget) override;
  std::optional<std::size_t> length() const override { return items_.size(); }

 private:
  Items items_;
  const char* type_;
};

// The interpreter owns it and empties it at the end of the render.
class Namespace : public Object {
 public:
  explicit Namespace(Budget& budget) : values_(budget) {}
  const char* type_name() const override { return "Namespace"; }
  void repr(String* out, Budget& budget) const override;
  std::optional<Value> attribute(Interpreter& interpreter, std::string_view name) override;
  void set(std::string_view name, Value value, Budget& budget) {
    values_.set(Value::of(name, budget), std::move(value), budget);
  }
  void clear(Budget& budget) { values_ = Dict(budget); }

 private:
  Dict values_;
};

class Cycler : public Object {
 public:
  explicit Cycler(Items items) : Object(depth_of(items)), items_(std::move(items)) {}
  const char* type_name() const override { return "Cycler"; }
  std::optional<Value> attribute(Interpreter& interpreter, std::string_view name) override;
  Value next();
  void reset() { at_ = 0; }

 private:
  Items items_;
  std::size_t at_ = 0;
};

class Joiner : public Object {
 public:
  explicit Joiner(Value separator) : Object(separator.depth()), separator_(std::move(separator)) {}
  const char* type_name() const override { return "Joiner"; }
  bool is_callable() const override { return true; }
  Value call(Interpreter& interpreter, Arguments arguments) override;

 private:
  Value separator_;
  bool used_ = false;
};

}  // namespace chorus::jinja

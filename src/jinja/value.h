// The values a template computes with: Python's, as far as templates see them. Values are immutable and shared; only
// objects (namespace, loop, cycler, joiner, generator) have state. What a value is made of comes from a render's
// budget. Nesting is bounded when a value is made, so whatever walks one, its destruction too, may recurse.
#pragma once

#include <concepts>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

#include "jinja/budget.h"
#include "json/json.h"

namespace chorus::jinja {

class Value;
class Interpreter;
using Items = Vector<Value>;
// Python's integers have no bound. These hold all of JSON's, unsigned 64-bit ids too, and what is computed with them.
using Integer = __int128;

// Order of the alternatives of Value::state_.
enum class Kind : std::uint8_t { undefined, none, boolean, integer, real, string, list, tuple, dict, object };

// Why a value is not there. Printing it gives nothing; most other uses raise `kind`: `message`.
struct UndefinedInfo {
  String message;
  const char* kind = "UndefinedError";
  bool strict = false;  // printing, testing and comparing raise too (jinja2's StrictUndefined)
};

struct Text {
  String bytes;            // UTF-8
  std::size_t length = 0;  // code points
  bool markup = false;     // came from `safe` or `escape`: + escapes what is joined to it, as markupsafe's Markup does
  bool is_ascii() const { return length == bytes.size(); }
};

struct Arguments;

inline constexpr int value_depth_max = 500;  // lists in lists in lists

// Insertion-ordered; keys compare as in Python (1, 1.0 and True are one key). Looking a key up reads all keys before
// it.
class Dict {
 public:
  explicit Dict(Budget& budget);
  const Value* find(const Value& key, Budget& budget) const;
  const Value* find(std::string_view key, Budget& budget) const;
  void set(Value key, Value value, Budget& budget);
  void append(Value key, Value value);  // a key known to be new
  const Vector<std::pair<Value, Value>>& entries() const { return entries_; }
  std::size_t size() const;

 private:
  Vector<std::pair<Value, Value>> entries_;
};

// Everything else: range, generators, dict views, namespace, loop, macros, bound methods, global functions.
class Object : public std::enable_shared_from_this<Object> {
 public:
  // `depth`: of the deepest value that the object holds for good. What it takes later belongs to the interpreter
  // (Interpreter::own), so that no chain of objects grows without this bound.
  explicit Object(int depth = 0);
  Object(const Object&) = delete;
  Object& operator=(const Object&) = delete;
  virtual ~Object() = default;
  virtual const char* type_name() const = 0;
  virtual void repr(String* out, Budget&) const;
  virtual std::optional<Value> attribute(Interpreter&, std::string_view name);
  virtual bool is_callable() const { return false; }
  virtual Value call(Interpreter& interpreter, Arguments arguments);
  virtual bool is_iterable() const { return false; }
  virtual Items iterate(Budget& budget);  // a generator gives its items once
  virtual std::optional<std::size_t> length() const { return std::nullopt; }
  virtual bool is_subscriptable() const { return false; }  // has length and items by position: range
  int depth() const { return depth_; }

 private:
  int depth_;
};

class Value {
 public:
  Value() : state_(std::shared_ptr<const UndefinedInfo>()) {}
  static Value none() { return Value(State(std::monostate())); }
  static Value undefined(String message, bool strict, const char* kind = "UndefinedError");
  static Value of(bool value) { return Value(State(value)); }
  static Value of(Integer value) { return Value(State(value)); }
  static Value of(std::int64_t value) { return of(static_cast<Integer>(value)); }
  static Value of(std::size_t value) { return of(static_cast<std::int64_t>(value)); }
  static Value of(int value) { return of(static_cast<std::int64_t>(value)); }
  static Value of(double value) { return Value(State(value)); }
  static Value of(String text, bool markup = false);
  static Value of(std::string_view text, Budget& budget, bool markup = false) {
    return of(String(text, budget), markup);
  }
  static Value list(Items items);
  static Value tuple(Items items);
  static Value of(Dict dict);
  static Value of(std::shared_ptr<Object> object) { return Value(State(std::move(object))); }
  template <typename T>
  requires std::derived_from<T, Object>
  static Value of(std::shared_ptr<T> object) { return of(std::shared_ptr<Object>(std::move(object))); }
  static Value from_json(const Json& json, Budget& budget);

  Kind kind() const;
  bool is(Kind kind) const { return this->kind() == kind; }
  bool is_undefined() const { return is(Kind::undefined); }
  bool is_none() const { return is(Kind::none); }
  bool is_string() const { return is(Kind::string); }
  bool is_number() const {
    return is(Kind::boolean) || is(Kind::integer) || is(Kind::real);
  }  // bool is an int in Python
  bool is_integral() const { return is(Kind::boolean) || is(Kind::integer); }
  bool is_sequence() const { return is(Kind::list) || is(Kind::tuple); }
  bool is_markup() const { return is_string() && text().markup; }

  // Each wants the right kind.
  bool boolean() const { return std::get<bool>(state_); }
  Integer integer() const;     // a bool too
  std::int64_t index() const;  // the same for a place, a count or a width; raises OverflowError beyond 64 bits
  double real() const;         // any number
  const Text& text() const { return **std::get_if<std::shared_ptr<const Text>>(&state_); }
  std::string_view string() const { return text().bytes; }
  const Items& items() const;  // list or tuple
  const Dict& dict() const { return (*std::get_if<std::shared_ptr<const DictBox>>(&state_))->dict; }
  const std::shared_ptr<Object>& object() const { return *std::get_if<std::shared_ptr<Object>>(&state_); }
  template <typename T>
  std::shared_ptr<T> object_as() const {
    return is(Kind::object) ? std::dynamic_pointer_cast<T>(object()) : nullptr;
  }
  const void* identity() const;  // of shared state; nullptr for plain values
  int depth() const;             // of nesting: 0 for what holds no other value

  [[noreturn]] void raise_undefined() const;
  void check_strict() const;  // raises for a strict undefined value
  std::string type_name() const;

 private:
  struct ListBox {
    Items items;
    int depth;
  };
  struct TupleBox {
    Items items;
    int depth;
  };
  struct DictBox {
    Dict dict;
    int depth;
  };
  using State = std::variant<std::shared_ptr<const UndefinedInfo>, std::monostate, bool, Integer, double,
                             std::shared_ptr<const Text>, std::shared_ptr<const ListBox>,
                             std::shared_ptr<const TupleBox>, std::shared_ptr<const DictBox>, std::shared_ptr<Object>>;
  explicit Value(State state) : state_(std::move(state)) {}
  State state_;
};

// Here, where a pair of values is complete.
inline Dict::Dict(Budget& budget) : entries_(budget) {}
inline std::size_t Dict::size() const {
  return entries_.size();
}

// An object of a render, from its budget.
template <typename T, typename... Args>
std::shared_ptr<T> make_object(Budget& budget, Args&&... args) {
  return std::allocate_shared<T>(Charged<T>(budget), std::forward<Args>(args)...);
}

int depth_of(const Items& items);  // of the deepest

struct Argument {
  std::string_view name;
  Value value;
  Value name_holder;  // what `name` points into, where that is no part of the template
};
struct Arguments {
  explicit Arguments(Budget& budget) : positional(budget), named(budget) {}
  explicit Arguments(Items items) : positional(std::move(items)), named(positional.get_allocator()) {}
  Items positional;
  Vector<Argument> named;
};

// The number that `digits` write in `base`, without sign. nullopt: they do not. Raises OverflowError beyond 128 bits.
std::optional<Integer> parse_digits(std::string_view digits, int base);

bool truth(const Value& value);
std::optional<std::size_t> length_of(const Value& value);           // len(); nullopt where Python raises
void append_text(const Value& value, String* out, Budget& budget);  // str()
void append_repr(const Value& value, String* out, Budget& budget);
bool equal(const Value& left, const Value& right, Budget& budget);
// Below, equal, above 0. Raises TypeError where Python does not order; `symbol` is for that message.
// NaN compares as nullopt.
std::optional<int> order(const Value& left, const Value& right, std::string_view symbol, Budget& budget);
bool contains(const Value& container, const Value& item, Budget& budget);
bool is_iterable(const Value& value);
Items iterate(const Value& value, Budget& budget);  // iter(); raises TypeError

// str(value), to be read: a string's own text, which `value` keeps, or one made for this.
class ReadText {
 public:
  ReadText(const Value& value, Budget& budget) : made_(budget), text_(value.is_string() ? value.string() : made_) {
    if (value.is_string()) return;
    append_text(value, &made_, budget);
    budget.read_characters(made_.size());
    text_ = made_;
  }
  ReadText(const ReadText&) = delete;
  ReadText& operator=(const ReadText&) = delete;
  std::string_view view() const { return text_; }
  operator std::string_view() const { return text_; }  // NOLINT: it stands for the text

 private:
  String made_;
  std::string_view text_;
};

struct JsonStyle {
  bool ensure_ascii = false;
  std::optional<std::string_view> indent;
  std::string_view item_separator = ", ";
  std::string_view key_separator = ": ";
  bool sort_keys = false;
};
void append_json(const Value& value, const JsonStyle& style, String* out, Budget& budget);  // json.dumps

}  // namespace chorus::jinja

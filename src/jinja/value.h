// The values a template computes with: Python's, as far as templates see them. Values are immutable and shared; only
// objects (namespace, loop, cycler, joiner, generator) have state.
#pragma once

#include <concepts>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "jinja/error.h"
#include "json/json.h"

namespace chorus::jinja {

class Value;
class Interpreter;
using Items = std::vector<Value>;
// Python's integers have no bound. These hold all of JSON's, unsigned 64-bit ids too, and what is computed with them.
using Integer = __int128;

// Order of the alternatives of Value::state_.
enum class Kind : std::uint8_t { undefined, none, boolean, integer, real, string, list, tuple, dict, object };

// Why a value is not there. Printing it gives nothing; most other uses raise `kind`: `message`.
struct UndefinedInfo {
  std::string message;
  std::string kind = "UndefinedError";
  bool strict = false;  // printing, testing and comparing raise too (jinja2's StrictUndefined)
};

struct Text {
  std::string bytes;       // UTF-8
  std::size_t length = 0;  // code points
  bool markup = false;     // came from `safe` or `escape`: + escapes what is joined to it, as markupsafe's Markup does
  bool is_ascii() const { return length == bytes.size(); }
};

struct Arguments;

// Insertion-ordered; keys compare as in Python (1, 1.0 and True are one key).
class Dict {
 public:
  const Value* find(const Value& key) const;
  const Value* find(std::string_view key) const;
  void set(Value key, Value value);
  void append(Value key, Value value);  // a key known to be new
  const std::vector<std::pair<Value, Value>>& entries() const { return entries_; }
  std::size_t size() const { return entries_.size(); }

 private:
  std::vector<std::pair<Value, Value>> entries_;
};

// Everything else: range, generators, dict views, namespace, loop, macros, bound methods, global functions.
class Object : public std::enable_shared_from_this<Object> {
 public:
  virtual ~Object() = default;
  virtual const char* type_name() const = 0;
  virtual std::string repr(Budget&) const { return fmt::format("<{} object>", type_name()); }
  virtual std::optional<Value> attribute(std::string_view name);
  virtual bool is_callable() const { return false; }
  virtual Value call(Interpreter& interpreter, Arguments arguments);
  virtual bool is_iterable() const { return false; }
  virtual Items iterate(Budget& budget);  // a generator gives its items once
  virtual std::optional<std::size_t> length() const { return std::nullopt; }
  virtual bool is_subscriptable() const { return false; }  // has length and items by position: range
};

class Value {
 public:
  Value() : state_(std::shared_ptr<const UndefinedInfo>()) {}
  static Value none() { return Value(State(std::monostate())); }
  static Value undefined(std::string message, bool strict, std::string kind = "UndefinedError");
  static Value of(bool value) { return Value(State(value)); }
  static Value of(Integer value) { return Value(State(value)); }
  static Value of(std::int64_t value) { return of(static_cast<Integer>(value)); }
  static Value of(std::size_t value) { return of(static_cast<std::int64_t>(value)); }
  static Value of(int value) { return of(static_cast<std::int64_t>(value)); }
  static Value of(double value) { return Value(State(value)); }
  static Value of(std::string text, bool markup = false);
  static Value of(std::string_view text) { return of(std::string(text)); }
  static Value of(const char* text) { return of(std::string(text)); }
  static Value list(Items items);
  static Value tuple(Items items);
  static Value of(Dict dict);
  static Value of(std::shared_ptr<Object> object) { return Value(State(std::move(object))); }
  template <typename T>
  requires std::derived_from<T, Object>
  static Value of(std::shared_ptr<T> object) { return of(std::shared_ptr<Object>(std::move(object))); }
  static Value from_json(const Json& json);

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
  const std::string& string() const { return text().bytes; }
  const Items& items() const;  // list or tuple
  const Dict& dict() const { return **std::get_if<std::shared_ptr<const Dict>>(&state_); }
  const std::shared_ptr<Object>& object() const { return *std::get_if<std::shared_ptr<Object>>(&state_); }
  template <typename T>
  std::shared_ptr<T> object_as() const {
    return is(Kind::object) ? std::dynamic_pointer_cast<T>(object()) : nullptr;
  }
  const void* identity() const;  // of shared state; nullptr for plain values

  [[noreturn]] void raise_undefined() const;
  void check_strict() const;  // raises for a strict undefined value
  std::string type_name() const;

 private:
  struct ListBox {
    Items items;
  };
  struct TupleBox {
    Items items;
  };
  using State = std::variant<std::shared_ptr<const UndefinedInfo>, std::monostate, bool, Integer, double,
                             std::shared_ptr<const Text>, std::shared_ptr<const ListBox>,
                             std::shared_ptr<const TupleBox>, std::shared_ptr<const Dict>, std::shared_ptr<Object>>;
  explicit Value(State state) : state_(std::move(state)) {}
  State state_;
};

struct Arguments {
  Items positional;
  std::vector<std::pair<std::string, Value>> named;
};

// The number that `digits` write in `base`, without sign. nullopt: they do not. Raises OverflowError beyond 128 bits.
std::optional<Integer> parse_digits(std::string_view digits, int base);

bool truth(const Value& value);
std::optional<std::size_t> length_of(const Value& value);  // len(); nullopt where Python raises
std::string to_text(const Value& value, Budget& budget);   // str()
std::string repr(const Value& value, Budget& budget);
bool equal(const Value& left, const Value& right, Budget& budget);
// Below, equal, above 0. Raises TypeError where Python does not order; `symbol` is for that message.
// NaN compares as nullopt.
std::optional<int> order(const Value& left, const Value& right, const char* symbol, Budget& budget);
bool contains(const Value& container, const Value& item, Budget& budget);
bool is_iterable(const Value& value);
Items iterate(const Value& value, Budget& budget);  // iter(); raises TypeError
Value make_string(std::string text, Budget& budget, bool markup = false);

struct JsonStyle {
  bool ensure_ascii = false;
  std::optional<std::string> indent;
  std::string item_separator = ", ";
  std::string key_separator = ": ";
  bool sort_keys = false;
};
std::string to_json(const Value& value, const JsonStyle& style, Budget& budget);  // json.dumps

}  // namespace chorus::jinja

#include "jinja/value.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "jinja/text.h"

namespace chorus::jinja {

std::optional<Value> Object::attribute(std::string_view) {
  return std::nullopt;
}
Value Object::call(Interpreter&, Arguments) {
  raise("TypeError", "'{}' object is not callable", type_name());
}
Items Object::iterate(Budget&) {
  raise("TypeError", "'{}' object is not iterable", type_name());
}

namespace {

// A dict key's equality needs no budget: keys are plain values or short tuples.
bool same_key(const Value& left, const Value& right) {
  if (left.is_number() && right.is_number()) {
    return left.is_integral() && right.is_integral() ? left.integer() == right.integer() : left.real() == right.real();
  }
  if (left.kind() != right.kind()) return false;
  switch (left.kind()) {
    case Kind::string:
      return left.string() == right.string();
    case Kind::none:
      return true;
    case Kind::tuple: {
      if (left.items().size() != right.items().size()) return false;
      for (std::size_t i = 0; i < left.items().size(); ++i) {
        if (!same_key(left.items()[i], right.items()[i])) return false;
      }
      return true;
    }
    default:
      return left.identity() == right.identity();
  }
}

void check_hashable(const Value& key) {
  if (key.is(Kind::list) || key.is(Kind::dict)) raise("TypeError", "unhashable type: '{}'", key.type_name());
  if (key.is(Kind::tuple)) {
    for (const Value& item : key.items()) check_hashable(item);
  }
}

}  // namespace

const Value* Dict::find(const Value& key) const {
  if (key.is_string()) return find(std::string_view(key.string()));
  check_hashable(key);
  for (const auto& [known, value] : entries_) {
    if (same_key(known, key)) return &value;
  }
  return nullptr;
}

const Value* Dict::find(std::string_view key) const {
  for (const auto& [known, value] : entries_) {
    if (known.is_string() && known.string() == key) return &value;
  }
  return nullptr;
}

void Dict::append(Value key, Value value) {
  entries_.emplace_back(std::move(key), std::move(value));
}

void Dict::set(Value key, Value value) {
  if (const Value* known = find(key)) {
    *const_cast<Value*>(known) = std::move(value);  // entries_ is ours and not const
    return;
  }
  append(std::move(key), std::move(value));
}

Value Value::undefined(std::string message, bool strict, std::string kind) {
  return Value(
      State(std::make_shared<const UndefinedInfo>(UndefinedInfo{std::move(message), std::move(kind), strict})));
}

Value Value::of(std::string text, bool markup) {
  const std::size_t length = count_code_points(text);
  return Value(State(std::make_shared<const Text>(Text{std::move(text), length, markup})));
}

Value Value::list(Items items) {
  return Value(State(std::make_shared<const ListBox>(ListBox{std::move(items)})));
}
Value Value::tuple(Items items) {
  return Value(State(std::make_shared<const TupleBox>(TupleBox{std::move(items)})));
}
Value Value::of(Dict dict) {
  return Value(State(std::make_shared<const Dict>(std::move(dict))));
}

Value Value::from_json(const Json& json) {
  switch (json.type()) {
    case Json::value_t::boolean:
      return of(json.get<bool>());
    case Json::value_t::number_integer:
      return of(json.get<std::int64_t>());
    case Json::value_t::number_unsigned:
      return of(static_cast<Integer>(json.get<std::uint64_t>()));
    case Json::value_t::number_float:
      return of(json.get<double>());
    case Json::value_t::string: {
      const std::string& text = json.get_ref<const std::string&>();
      return is_utf8(text) ? of(text) : of(to_utf8(to_code_points(text)));
    }
    case Json::value_t::array: {
      Items items;
      for (const Json& item : json) items.push_back(from_json(item));
      return list(std::move(items));
    }
    case Json::value_t::object: {
      Dict dict;
      for (const auto& [key, value] : json.items()) dict.append(of(key), from_json(value));
      return of(std::move(dict));
    }
    default:
      return none();
  }
}

Kind Value::kind() const {
  return static_cast<Kind>(state_.index());
}

Integer Value::integer() const {
  return is(Kind::boolean) ? Integer{std::get<bool>(state_)} : std::get<Integer>(state_);
}

std::int64_t Value::index() const {
  const Integer number = integer();
  if (number < INT64_MIN || number > INT64_MAX) raise("OverflowError", "{} does not fit into 64 bits", number);
  return static_cast<std::int64_t>(number);
}

double Value::real() const {
  return is(Kind::real) ? std::get<double>(state_) : static_cast<double>(integer());
}

const Items& Value::items() const {
  if (const auto* tuple = std::get_if<std::shared_ptr<const TupleBox>>(&state_)) return (*tuple)->items;
  return (*std::get_if<std::shared_ptr<const ListBox>>(&state_))->items;
}

const void* Value::identity() const {
  return std::visit(
      [](const auto& state) -> const void* {
        if constexpr (requires { state.get(); }) {
          return state.get();
        } else {
          return nullptr;
        }
      },
      state_);
}

void Value::raise_undefined() const {
  const auto& info = std::get<std::shared_ptr<const UndefinedInfo>>(state_);
  throw TemplateError{ErrorCode::invalid_argument, info ? info->kind : "UndefinedError",
                      info ? info->message : "value is undefined", 0};
}

void Value::check_strict() const {
  const auto* info = std::get_if<std::shared_ptr<const UndefinedInfo>>(&state_);
  if (info != nullptr && *info && (*info)->strict) raise_undefined();
}

std::string Value::type_name() const {
  switch (kind()) {
    case Kind::undefined:
      return "Undefined";
    case Kind::none:
      return "NoneType";
    case Kind::boolean:
      return "bool";
    case Kind::integer:
      return "int";
    case Kind::real:
      return "float";
    case Kind::string:
      return text().markup ? "Markup" : "str";
    case Kind::list:
      return "list";
    case Kind::tuple:
      return "tuple";
    case Kind::dict:
      return "dict";
    case Kind::object:
      return object()->type_name();
  }
  return "object";
}

std::optional<Integer> parse_digits(std::string_view digits, int base) {
  if (digits.empty()) return std::nullopt;
  Integer number = 0;
  for (const char c : digits) {
    const bool is_letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    const int digit = c >= '0' && c <= '9' ? c - '0' : is_letter ? (c | 0x20) - 'a' + 10 : base;
    if (digit >= base) return std::nullopt;
    if (__builtin_mul_overflow(number, Integer{base}, &number) ||
        __builtin_add_overflow(number, Integer{digit}, &number))
      raise("OverflowError", "integers in templates have 128 bits");
  }
  return number;
}

bool truth(const Value& value) {
  value.check_strict();
  switch (value.kind()) {
    case Kind::undefined:
    case Kind::none:
      return false;
    case Kind::boolean:
    case Kind::integer:
      return value.integer() != 0;
    case Kind::real:
      return value.real() != 0;
    case Kind::string:
      return !value.string().empty();
    case Kind::list:
    case Kind::tuple:
      return !value.items().empty();
    case Kind::dict:
      return value.dict().size() != 0;
    case Kind::object: {
      const auto length = value.object()->length();
      return !length || *length != 0;
    }
  }
  return false;
}

std::optional<std::size_t> length_of(const Value& value) {
  value.check_strict();
  switch (value.kind()) {
    case Kind::undefined:
      return 0;
    case Kind::string:
      return value.text().length;
    case Kind::list:
    case Kind::tuple:
      return value.items().size();
    case Kind::dict:
      return value.dict().size();
    case Kind::object:
      return value.object()->length();
    default:
      return std::nullopt;
  }
}

Value make_string(std::string text, Budget& budget, bool markup) {
  budget.string_of(text.size());
  return Value::of(std::move(text), markup);
}

std::string to_text(const Value& value, Budget& budget) {
  if (value.is_string()) return value.string();
  value.check_strict();
  if (value.is_undefined()) return "";
  return repr(value, budget);
}

std::string repr(const Value& value, Budget& budget) {
  budget.step();
  const Budget::Level level(&budget);
  const auto sequence = [&](const Items& items) {
    std::string out;
    for (const Value& item : items) {
      if (!out.empty()) out += ", ";
      out += repr(item, budget);
      budget.string_of(out.size() / 64);
    }
    return out;
  };
  switch (value.kind()) {
    case Kind::undefined:
      return "Undefined";
    case Kind::none:
      return "None";
    case Kind::boolean:
      return value.boolean() ? "True" : "False";
    case Kind::integer:
      return fmt::format("{}", value.integer());
    case Kind::real:
      return float_repr(value.real());
    case Kind::string:
      return value.is_markup() ? "Markup(" + quote(value.string()) + ")" : quote(value.string());
    case Kind::list:
      return "[" + sequence(value.items()) + "]";
    case Kind::tuple:
      return "(" + sequence(value.items()) + (value.items().size() == 1 ? ",)" : ")");
    case Kind::dict: {
      std::string out;
      for (const auto& [key, item] : value.dict().entries()) {
        if (!out.empty()) out += ", ";
        out += repr(key, budget) + ": " + repr(item, budget);
      }
      return "{" + out + "}";
    }
    case Kind::object: {
      if (value.object()->is_iterable() && value.object()->length() && !value.object()->is_subscriptable()) {
        return fmt::format("{}([{}])", value.type_name(), sequence(value.object()->iterate(budget)));  // dict views
      }
      return value.object()->repr(budget);
    }
  }
  return {};
}

bool equal(const Value& left, const Value& right, Budget& budget) {
  budget.step();
  left.check_strict();
  right.check_strict();
  if (left.is_number() && right.is_number()) return same_key(left, right);
  if (left.kind() != right.kind()) return false;
  const Budget::Level level(&budget);
  switch (left.kind()) {
    case Kind::undefined:
    case Kind::none:
      return true;
    case Kind::string:
      return left.string() == right.string();
    case Kind::list:
    case Kind::tuple: {
      const Items& a = left.items();
      const Items& b = right.items();
      if (a.size() != b.size()) return false;
      for (std::size_t i = 0; i < a.size(); ++i) {
        if (!equal(a[i], b[i], budget)) return false;
      }
      return true;
    }
    case Kind::dict: {
      if (left.dict().size() != right.dict().size()) return false;
      for (const auto& [key, value] : left.dict().entries()) {
        const Value* other = right.dict().find(key);
        if (other == nullptr || !equal(value, *other, budget)) return false;
      }
      return true;
    }
    default: {
      if (left.identity() == right.identity()) return true;
      const bool ranges = left.object()->is_subscriptable() && right.object()->is_subscriptable();
      return ranges &&
             equal(Value::list(left.object()->iterate(budget)), Value::list(right.object()->iterate(budget)), budget);
    }
  }
}

std::optional<int> order(const Value& left, const Value& right, const char* symbol, Budget& budget) {
  budget.step();
  const auto sign = [](const auto& a, const auto& b) { return a < b ? -1 : (b < a ? 1 : 0); };
  if (left.is_undefined()) left.raise_undefined();
  if (right.is_undefined()) right.raise_undefined();
  if (left.is_number() && right.is_number()) {
    if (left.is_integral() && right.is_integral()) return sign(left.integer(), right.integer());
    if (std::isnan(left.real()) || std::isnan(right.real())) return std::nullopt;
    return sign(left.real(), right.real());
  }
  if (left.is_string() && right.is_string())
    return sign(left.string(), right.string());  // UTF-8 keeps code point order
  if (left.is_sequence() && left.kind() == right.kind()) {
    const Budget::Level level(&budget);
    const Items& a = left.items();
    const Items& b = right.items();
    for (std::size_t i = 0; i < a.size() && i < b.size(); ++i) {
      if (!equal(a[i], b[i], budget)) return order(a[i], b[i], symbol, budget);
    }
    return sign(a.size(), b.size());
  }
  raise("TypeError", "'{}' not supported between instances of '{}' and '{}'", symbol, left.type_name(),
        right.type_name());
}

bool contains(const Value& container, const Value& item, Budget& budget) {
  if (container.is_string()) {
    if (item.is_undefined()) raise("TypeError", "'in <string>' requires string as left operand, not Undefined");
    if (!item.is_string())
      raise("TypeError", "'in <string>' requires string as left operand, not {}", item.type_name());
    budget.string_of(container.string().size());
    return container.string().find(item.string()) != std::string::npos;
  }
  if (container.is(Kind::dict)) {
    budget.step(1 + container.dict().size() / 16);
    return container.dict().find(item) != nullptr;
  }
  if (!is_iterable(container)) raise("TypeError", "argument of type '{}' is not iterable", container.type_name());
  for (const Value& candidate : iterate(container, budget)) {
    if (equal(candidate, item, budget)) return true;
  }
  return false;
}

bool is_iterable(const Value& value) {
  switch (value.kind()) {
    case Kind::undefined:
    case Kind::string:
    case Kind::list:
    case Kind::tuple:
    case Kind::dict:
      return true;
    case Kind::object:
      return value.object()->is_iterable();
    default:
      return false;
  }
}

Items iterate(const Value& value, Budget& budget) {
  value.check_strict();
  switch (value.kind()) {
    case Kind::undefined:
      return {};
    case Kind::list:
    case Kind::tuple:
      budget.list_of(value.items().size());
      return value.items();
    case Kind::string: {
      budget.list_of(value.text().length);
      budget.step(value.text().length);
      Items items;
      for (const char32_t c : to_code_points(value.string())) {
        std::string one;
        append_utf8(c, &one);
        items.push_back(Value::of(std::move(one)));
      }
      return items;
    }
    case Kind::dict: {
      budget.list_of(value.dict().size());
      Items items;
      for (const auto& [key, item] : value.dict().entries()) items.push_back(key);
      return items;
    }
    case Kind::object:
      return value.object()->iterate(budget);
    default:
      raise("TypeError", "'{}' object is not iterable", value.type_name());
  }
}

}  // namespace chorus::jinja

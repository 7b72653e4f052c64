#include "jinja/value.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "jinja/text.h"

namespace chorus::jinja {

namespace {

int deeper(int depth) {
  if (depth >= value_depth_max) raise_limit("a value nested deeper than {} levels", value_depth_max);
  return depth + 1;
}

}  // namespace

Object::Object(int depth) : depth_(deeper(depth)) {}
void Object::repr(String* out, Budget&) const {
  out->append("<").append(type_name()).append(" object>");
}
std::optional<Value> Object::attribute(Interpreter&, std::string_view) {
  return std::nullopt;
}
Value Object::call(Interpreter&, Arguments) {
  raise("TypeError", "'{}' object is not callable", type_name());
}
Items Object::iterate(Budget&) {
  raise("TypeError", "'{}' object is not iterable", type_name());
}

namespace {

bool same_text(std::string_view left, std::string_view right, Budget& budget) {
  if (left.size() != right.size()) return false;
  budget.read_bytes(left.size());
  return left == right;
}

bool same_number(const Value& left, const Value& right) {
  return left.is_integral() && right.is_integral() ? left.integer() == right.integer() : left.real() == right.real();
}

bool same_key(const Value& left, const Value& right, Budget& budget) {
  if (left.is_number() && right.is_number()) return same_number(left, right);
  if (left.kind() != right.kind()) return false;
  switch (left.kind()) {
    case Kind::string:
      return same_text(left.string(), right.string(), budget);
    case Kind::none:
      return true;
    case Kind::tuple: {
      if (left.items().size() != right.items().size()) return false;
      const Budget::Level level(budget);
      for (std::size_t i = 0; i < left.items().size(); ++i) {
        budget.step();
        if (!same_key(left.items()[i], right.items()[i], budget)) return false;
      }
      return true;
    }
    default:
      return left.identity() == right.identity();
  }
}

void check_hashable(const Value& key, Budget& budget) {
  if (key.is(Kind::list) || key.is(Kind::dict)) raise("TypeError", "unhashable type: '{}'", key.type_name());
  if (!key.is(Kind::tuple)) return;
  const Budget::Level level(budget);
  for (const Value& item : key.items()) {
    budget.step();
    check_hashable(item, budget);
  }
}

}  // namespace

const Value* Dict::find(const Value& key, Budget& budget) const {
  if (key.is_string()) return find(key.string(), budget);
  check_hashable(key, budget);
  budget.read_items(entries_.size());
  for (const auto& [known, value] : entries_) {
    if (same_key(known, key, budget)) return &value;
  }
  return nullptr;
}

const Value* Dict::find(std::string_view key, Budget& budget) const {
  std::size_t read = 0;
  for (const auto& [known, value] : entries_) {
    ++read;
    if (!known.is_string() || !same_text(known.string(), key, budget)) continue;
    budget.compare_names(read);
    return &value;
  }
  budget.compare_names(read);
  return nullptr;
}

void Dict::append(Value key, Value value) {
  entries_.emplace_back(std::move(key), std::move(value));
}

void Dict::set(Value key, Value value, Budget& budget) {
  if (const Value* known = find(key, budget)) {
    *const_cast<Value*>(known) = std::move(value);  // entries_ is ours and not const
    return;
  }
  append(std::move(key), std::move(value));
}

namespace {

// A box and its block's counters from the budget of what goes into it.
template <typename Box, typename Allocator, typename... Args>
std::shared_ptr<const Box> make_box(const Allocator& allocator, Args&&... args) {
  return std::allocate_shared<const Box>(Charged<Box>(allocator), Box{std::forward<Args>(args)...});
}

}  // namespace

int depth_of(const Items& items) {
  int depth = 0;
  for (const Value& item : items) depth = std::max(depth, item.depth());
  return depth;
}

Value Value::undefined(String message, bool strict, const char* kind) {
  const auto allocator = message.get_allocator();
  return Value(State(make_box<UndefinedInfo>(allocator, std::move(message), kind, strict)));
}

Value Value::of(String text, bool markup) {
  const auto allocator = text.get_allocator();
  const std::size_t length = count_code_points(text);
  return Value(State(make_box<Text>(allocator, std::move(text), length, markup)));
}

Value Value::list(Items items) {
  const auto allocator = items.get_allocator();
  const int depth = deeper(depth_of(items));
  return Value(State(make_box<ListBox>(allocator, std::move(items), depth)));
}
Value Value::tuple(Items items) {
  const auto allocator = items.get_allocator();
  const int depth = deeper(depth_of(items));
  return Value(State(make_box<TupleBox>(allocator, std::move(items), depth)));
}
Value Value::of(Dict dict) {
  const auto allocator = dict.entries().get_allocator();
  int depth = 0;
  for (const auto& [key, value] : dict.entries()) depth = std::max({depth, key.depth(), value.depth()});
  depth = deeper(depth);
  return Value(State(make_box<DictBox>(allocator, std::move(dict), depth)));
}

int Value::depth() const {
  switch (kind()) {
    case Kind::list:
      return (*std::get_if<std::shared_ptr<const ListBox>>(&state_))->depth;
    case Kind::tuple:
      return (*std::get_if<std::shared_ptr<const TupleBox>>(&state_))->depth;
    case Kind::dict:
      return (*std::get_if<std::shared_ptr<const DictBox>>(&state_))->depth;
    case Kind::object:
      return object()->depth();
    default:
      return 0;
  }
}

Value Value::from_json(const Json& json, Budget& budget) {
  const Budget::Level level(budget);
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
      budget.search_bytes(text.size());
      if (is_utf8(text)) return of(text, budget);
      String replaced(budget);
      each_code_point(text, [&](char32_t c) { append_utf8(c, &replaced); });
      return of(std::move(replaced));
    }
    case Json::value_t::array: {
      Items items(budget);
      items.reserve(json.size());
      for (const Json& item : json) items.push_back(from_json(item, budget));
      return list(std::move(items));
    }
    case Json::value_t::object: {
      Dict dict(budget);
      for (const auto& [key, value] : json.items()) dict.append(of(key, budget), from_json(value, budget));
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
  if (!info) raise("UndefinedError", "value is undefined");
  throw TemplateError{ErrorCode::invalid_argument, info->kind, std::string(info->message), 0};
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

void append_text(const Value& value, String* out, Budget& budget) {
  if (value.is_string()) {
    budget.read_bytes(value.string().size());
    out->append(value.string());
    return;
  }
  value.check_strict();
  if (!value.is_undefined()) append_repr(value, out, budget);
}

namespace {

void append_items(const Items& items, String* out, Budget& budget) {
  bool first = true;
  for (const Value& item : items) {
    if (!first) out->append(", ");
    first = false;
    append_repr(item, out, budget);
  }
}

void append_entries(const Dict& dict, String* out, Budget& budget) {
  bool first = true;
  for (const auto& [key, item] : dict.entries()) {
    if (!first) out->append(", ");
    first = false;
    append_repr(key, out, budget);
    out->append(": ");
    append_repr(item, out, budget);
  }
}

}  // namespace

void append_repr(const Value& value, String* out, Budget& budget) {
  budget.step(2);
  const Budget::Level level(budget);
  switch (value.kind()) {
    case Kind::undefined:
      out->append("Undefined");
      break;
    case Kind::none:
      out->append("None");
      break;
    case Kind::boolean:
      out->append(value.boolean() ? "True" : "False");
      break;
    case Kind::integer:
      out->append(std::string_view(fmt::format("{}", value.integer())));
      break;
    case Kind::real:
      out->append(float_repr(value.real()));
      break;
    case Kind::string:
      budget.read_characters(value.string().size());
      if (value.is_markup()) out->append("Markup(");
      append_quoted(value.string(), out);
      if (value.is_markup()) out->append(")");
      break;
    case Kind::list:
      out->append("[");
      append_items(value.items(), out, budget);
      out->append("]");
      break;
    case Kind::tuple:
      out->append("(");
      append_items(value.items(), out, budget);
      out->append(value.items().size() == 1 ? ",)" : ")");
      break;
    case Kind::dict:
      out->append("{");
      append_entries(value.dict(), out, budget);
      out->append("}");
      break;
    case Kind::object:
      if (value.object()->is_iterable() && value.object()->length() && !value.object()->is_subscriptable()) {
        out->append(value.type_name()).append("([");  // dict views
        append_items(value.object()->iterate(budget), out, budget);
        out->append("])");
      } else {
        value.object()->repr(out, budget);
      }
  }
}

bool equal(const Value& left, const Value& right, Budget& budget) {
  budget.step();
  left.check_strict();
  right.check_strict();
  if (left.is_number() && right.is_number()) return same_number(left, right);
  if (left.kind() != right.kind()) return false;
  const Budget::Level level(budget);
  switch (left.kind()) {
    case Kind::undefined:
    case Kind::none:
      return true;
    case Kind::string:
      return same_text(left.string(), right.string(), budget);
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
        const Value* other = right.dict().find(key, budget);
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

std::optional<int> order(const Value& left, const Value& right, std::string_view symbol, Budget& budget) {
  budget.step();
  const auto sign = [](const auto& a, const auto& b) { return a < b ? -1 : (b < a ? 1 : 0); };
  if (left.is_undefined()) left.raise_undefined();
  if (right.is_undefined()) right.raise_undefined();
  if (left.is_number() && right.is_number()) {
    if (left.is_integral() && right.is_integral()) return sign(left.integer(), right.integer());
    if (std::isnan(left.real()) || std::isnan(right.real())) return std::nullopt;
    return sign(left.real(), right.real());
  }
  if (left.is_string() && right.is_string()) {
    budget.read_bytes(std::min(left.string().size(), right.string().size()));
    return sign(left.string(), right.string());  // UTF-8 keeps code point order
  }
  if (left.is_sequence() && left.kind() == right.kind()) {
    const Budget::Level level(budget);
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
    return find(container.string(), item.string(), budget) != std::string_view::npos;
  }
  if (container.is(Kind::dict)) {
    return container.dict().find(item, budget) != nullptr;
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
      return Items(budget);
    case Kind::list:
    case Kind::tuple:
      budget.read_items(value.items().size());
      return Items(value.items(), budget);
    case Kind::string: {
      budget.step(value.text().length);
      Items items(budget);
      items.reserve(value.text().length);
      each_code_point(value.string(), [&](char32_t c) {
        String one(budget);
        append_utf8(c, &one);
        items.push_back(Value::of(std::move(one)));
      });
      return items;
    }
    case Kind::dict: {
      budget.read_items(value.dict().size());
      Items items(budget);
      items.reserve(value.dict().size());
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

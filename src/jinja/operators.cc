#include "jinja/operators.h"

#include <algorithm>
#include <cmath>

#include "jinja/objects.h"
#include "jinja/text.h"

namespace chorus::jinja {
namespace {

[[noreturn]] void overflow() {
  raise("OverflowError", "integers in templates have 128 bits");
}

Integer floor_divide(Integer a, Integer b) {
  if (b == -1) {
    Integer result = 0;
    if (__builtin_sub_overflow(Integer{0}, a, &result)) overflow();
    return result;
  }
  const Integer quotient = a / b;
  return a % b != 0 && (a < 0) != (b < 0) ? quotient - 1 : quotient;
}

Value power(Integer base, Integer exponent) {
  Integer result = 1;
  while (exponent > 0) {
    if ((exponent & 1) != 0 && __builtin_mul_overflow(result, base, &result)) overflow();
    exponent >>= 1;
    if (exponent > 0 && __builtin_mul_overflow(base, base, &base)) overflow();
  }
  return Value::of(result);
}

Value integers(std::string_view symbol, Integer a, Integer b) {
  Integer result = 0;
  if (symbol == "+") {
    if (__builtin_add_overflow(a, b, &result)) overflow();
  } else if (symbol == "-") {
    if (__builtin_sub_overflow(a, b, &result)) overflow();
  } else if (symbol == "*") {
    if (__builtin_mul_overflow(a, b, &result)) overflow();
  } else if (symbol == "/") {
    if (b == 0) raise("ZeroDivisionError", "division by zero");
    return Value::of(static_cast<double>(a) / static_cast<double>(b));
  } else if (symbol == "//") {
    if (b == 0) raise("ZeroDivisionError", "integer division or modulo by zero");
    result = floor_divide(a, b);
  } else if (symbol == "%") {
    if (b == 0) raise("ZeroDivisionError", "integer modulo by zero");
    result = b == -1 ? 0 : a % b;
    if (result != 0 && (result < 0) != (b < 0)) result += b;
  } else {
    if (b >= 0) return power(a, b);
    if (a == 0) raise("ZeroDivisionError", "0.0 cannot be raised to a negative power");
    return Value::of(std::pow(static_cast<double>(a), static_cast<double>(b)));
  }
  return Value::of(result);
}

Value reals(std::string_view symbol, double a, double b) {
  if (symbol == "+") return Value::of(a + b);
  if (symbol == "-") return Value::of(a - b);
  if (symbol == "*") return Value::of(a * b);
  if (symbol == "**") {
    if (a == 0 && b < 0) raise("ZeroDivisionError", "0.0 cannot be raised to a negative power");
    const double result = std::pow(a, b);
    if (std::isnan(result) && !std::isnan(a) && !std::isnan(b)) raise("TypeError", "complex numbers are not supported");
    if (std::isinf(result) && std::isfinite(a) && std::isfinite(b))
      raise("OverflowError", "(34, 'Numerical result out of range')");
    return Value::of(result);
  }
  if (b == 0) raise("ZeroDivisionError", "float division by zero");
  if (symbol == "/") return Value::of(a / b);
  double remainder = std::fmod(a, b);
  if (remainder != 0 && (remainder < 0) != (b < 0)) remainder += b;
  if (symbol == "%") return Value::of(remainder == 0 ? std::copysign(0.0, b) : remainder);
  return Value::of(std::round((a - remainder) / b));
}

Value repeat(const Value& sequence, std::int64_t count, Budget& budget) {
  const auto times = static_cast<std::uint64_t>(std::max<std::int64_t>(count, 0));
  if (sequence.is_string()) {
    String out(budget);
    budget.step(sequence.string().size() < 2 ? 0 : times / 16);
    append_repeated(sequence.string(), times, &out);
    return Value::of(std::move(out), sequence.text().markup);
  }
  std::uint64_t size = 0;
  if (__builtin_mul_overflow(sequence.items().size(), times, &size) || size > UINT32_MAX) {
    raise_limit("a list of {} times {} items is more than a template may make", times, sequence.items().size());
  }
  Items items(budget);
  items.reserve(size);
  budget.read_items(size);
  for (std::uint64_t i = 0; i < times && !sequence.items().empty(); ++i)
    items.insert(items.end(), sequence.items().begin(), sequence.items().end());
  return sequence.is(Kind::list) ? Value::list(std::move(items)) : Value::tuple(std::move(items));
}

void append_as_markup(const Value& value, String* out, Budget& budget) {
  if (value.text().markup) {
    out->append(value.string());
  } else {
    budget.read_characters(value.string().size());
    append_escaped(value.string(), out);
  }
}

Value add_sequences(const Value& left, const Value& right, Budget& budget) {
  if (left.is_string()) {
    String out(budget);
    out.reserve(left.string().size() + right.string().size());
    const bool markup = left.is_markup() || right.is_markup();
    if (markup) {
      append_as_markup(left, &out, budget);
      append_as_markup(right, &out, budget);
    } else {
      out.append(left.string()).append(right.string());
    }
    return Value::of(std::move(out), markup);
  }
  Items items(budget);
  items.reserve(left.items().size() + right.items().size());
  budget.read_items(items.capacity());
  items.insert(items.end(), left.items().begin(), left.items().end());
  items.insert(items.end(), right.items().begin(), right.items().end());
  return left.is(Kind::list) ? Value::list(std::move(items)) : Value::tuple(std::move(items));
}

bool is_repeatable(const Value& value) {
  return value.is_string() || value.is_sequence();
}

[[noreturn]] void raise_operands(std::string_view symbol, const Value& left, const Value& right) {
  if (symbol == "+" && is_repeatable(left)) {
    const std::string type = left.is_string() ? "str" : left.type_name();
    raise("TypeError", "can only concatenate {} (not \"{}\") to {}", type, right.type_name(), type);
  }
  if (symbol == "*" && (is_repeatable(left) || is_repeatable(right))) {
    const Value& other = is_repeatable(left) ? right : left;
    raise("TypeError", "can't multiply sequence by non-int of type '{}'", other.type_name());
  }
  raise("TypeError", "unsupported operand type(s) for {}: '{}' and '{}'", symbol == "**" ? "** or pow()" : symbol,
        left.type_name(), right.type_name());
}

// A slice's bound, clamped as Python does.
std::int64_t clamp_bound(const Value& bound, std::int64_t size, std::int64_t otherwise, bool backward) {
  if (bound.is_none()) return otherwise;
  if (bound.is_undefined()) bound.raise_undefined();
  if (!bound.is_integral()) raise("TypeError", "slice indices must be integers or None or have an __index__ method");
  auto index = static_cast<std::int64_t>(std::clamp<Integer>(bound.integer(), -INT64_MAX, INT64_MAX));
  if (index < 0) {
    index = index < -size ? -1 : index + size;
    return std::max<std::int64_t>(index, backward ? -1 : 0);
  }
  return std::min(index, backward ? size - 1 : size);
}

// The characters of a text at `count` places, in their order.
template <typename Place>
Value every_character(const Value& value, std::size_t count, Place place, Budget& budget) {
  const std::string_view text = value.string();
  budget.read_characters(text.size() + count);
  Vector<std::uint32_t> begins(budget);  // of each character
  begins.reserve(value.text().length + 1);
  for (std::size_t at = 0; at < text.size(); at = after_character(text, at)) {
    begins.push_back(static_cast<std::uint32_t>(at));
  }
  begins.push_back(static_cast<std::uint32_t>(text.size()));
  String out(budget);
  for (std::size_t n = 0; n < count; ++n) {
    const std::size_t at = place(n);
    out.append(text.substr(begins[at], begins[at + 1] - begins[at]));
  }
  return Value::of(std::move(out), value.text().markup);
}

}  // namespace

Value binary(std::string_view symbol, const Value& left, const Value& right, Budget& budget) {
  if (symbol == "%" && left.is_string()) {
    budget.read_characters(left.string().size());
    return Value::of(format_percent(left.string(), right, left.is_markup(), budget), left.is_markup());
  }
  if (left.is_undefined()) left.raise_undefined();
  if (right.is_undefined()) right.raise_undefined();
  if (left.is_integral() && right.is_integral()) return integers(symbol, left.integer(), right.integer());
  if (left.is_number() && right.is_number()) return reals(symbol, left.real(), right.real());
  if (symbol == "+" && is_repeatable(left) && left.kind() == right.kind()) return add_sequences(left, right, budget);
  if (symbol == "*" && is_repeatable(left) && right.is_integral()) return repeat(left, right.index(), budget);
  if (symbol == "*" && is_repeatable(right) && left.is_integral()) return repeat(right, left.index(), budget);
  raise_operands(symbol, left, right);
}

Value negate(const Value& value) {
  if (value.is_undefined()) value.raise_undefined();
  if (value.is_integral()) return integers("-", 0, value.integer());
  if (value.is(Kind::real)) return Value::of(-value.real());
  raise("TypeError", "bad operand type for unary -: '{}'", value.type_name());
}

Value plus(const Value& value) {
  if (value.is_undefined()) value.raise_undefined();
  if (value.is_integral()) return Value::of(value.integer());
  if (value.is(Kind::real)) return value;
  raise("TypeError", "bad operand type for unary +: '{}'", value.type_name());
}

bool compare(std::string_view symbol, const Value& left, const Value& right, Budget& budget) {
  if (symbol == "==") return equal(left, right, budget);
  if (symbol == "!=") return !equal(left, right, budget);
  if (symbol == "in") return contains(right, left, budget);
  if (symbol == "not in") return !contains(right, left, budget);
  const auto result = order(left, right, symbol, budget);
  if (!result) return false;
  if (symbol == "<") return *result < 0;
  if (symbol == "<=") return *result <= 0;
  if (symbol == ">") return *result > 0;
  return *result >= 0;
}

std::optional<Value> slice(const Value& value, const Value& begin, const Value& end, const Value& step,
                           Budget& budget) {
  const auto range = value.object_as<Range>();
  if (!value.is_string() && !value.is_sequence() && range == nullptr) return std::nullopt;
  if (!step.is_none() && !step.is_integral())
    raise("TypeError", "slice indices must be integers or None or have an __index__ method");
  const std::int64_t stride = step.is_none() ? 1 : step.index();
  if (stride == 0) raise("ValueError", "slice step cannot be zero");
  const bool backward = stride < 0;
  const auto size = static_cast<std::int64_t>(*length_of(value));
  const std::int64_t first = clamp_bound(begin, size, backward ? size - 1 : 0, backward);
  const std::int64_t last = clamp_bound(end, size, backward ? -1 : size, backward);
  if (value.is_string() && stride == 1) {
    const std::string_view text = value.string();
    if (first >= last) return Value::of("", budget, value.text().markup);
    if (!value.text().is_ascii()) budget.search_bytes(text.size());
    const bool ascii = value.text().is_ascii();
    const std::string_view rest = text.substr(byte_of_character(text, ascii, first));
    return Value::of(rest.substr(0, byte_of_character(rest, ascii, last - first)), budget, value.text().markup);
  }
  // How many are taken: in 128 bits, as a stride may be anything.
  const __int128 distance = backward ? static_cast<__int128>(first) - last : static_cast<__int128>(last) - first;
  const __int128 width = backward ? -static_cast<__int128>(stride) : static_cast<__int128>(stride);
  const auto count = static_cast<std::size_t>(distance <= 0 ? 0 : (distance + width - 1) / width);
  const auto place = [&](std::size_t n) { return static_cast<std::size_t>(first + static_cast<__int128>(n) * stride); };
  if (value.is_string()) return every_character(value, count, place, budget);
  if (range != nullptr) {
    const auto fit = [](__int128 number) {
      return static_cast<std::int64_t>(std::clamp<__int128>(number, INT64_MIN, INT64_MAX));
    };
    const std::int64_t start = fit(range->begin() + static_cast<__int128>(first) * range->step());
    return Value::of(make_object<Range>(budget, start, fit(static_cast<__int128>(range->step()) * stride), count));
  }
  Items items(budget);
  items.reserve(count);
  budget.read_items(count);
  for (std::size_t n = 0; n < count; ++n) items.push_back(value.items()[place(n)]);
  return value.is(Kind::tuple) ? Value::tuple(std::move(items)) : Value::list(std::move(items));
}

}  // namespace chorus::jinja

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
    const std::string& text = sequence.string();
    std::uint64_t bytes = 0;
    if (__builtin_mul_overflow(text.size(), times, &bytes)) bytes = UINT64_MAX;
    budget.string_of(bytes);
    std::string out;
    out.reserve(bytes);
    if (!text.empty()) {
      for (std::uint64_t i = 0; i < times; ++i) out += text;
    }
    return Value::of(std::move(out), sequence.text().markup);
  }
  std::uint64_t size = 0;
  if (__builtin_mul_overflow(sequence.items().size(), times, &size)) size = UINT64_MAX;
  budget.list_of(size);
  Items items;
  if (!sequence.items().empty()) {
    for (std::uint64_t i = 0; i < times; ++i)
      items.insert(items.end(), sequence.items().begin(), sequence.items().end());
  }
  return sequence.is(Kind::list) ? Value::list(std::move(items)) : Value::tuple(std::move(items));
}

std::string escaped(const Value& value) {
  return value.text().markup ? value.string() : escape_html(value.string());
}

Value add_sequences(const Value& left, const Value& right, Budget& budget) {
  if (left.is_string()) {
    budget.string_of(left.string().size() + right.string().size());
    if (left.is_markup() || right.is_markup()) return Value::of(escaped(left) + escaped(right), true);
    return Value::of(left.string() + right.string());
  }
  budget.list_of(left.items().size() + right.items().size());
  Items items = left.items();
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

}  // namespace

Value binary(std::string_view symbol, const Value& left, const Value& right, Budget& budget) {
  if (symbol == "%" && left.is_string()) {
    std::string text = format_percent(left.string(), right, left.is_markup(), budget);
    return make_string(std::move(text), budget, left.is_markup());
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
  const auto result = order(left, right, std::string(symbol).c_str(), budget);
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
  if (value.is_string() && value.text().is_ascii() && stride == 1) {
    if (first >= last) return Value::of("", value.text().markup);
    return make_string(value.string().substr(static_cast<std::size_t>(first), static_cast<std::size_t>(last - first)),
                       budget, value.text().markup);
  }
  const auto each = [&](auto take) {
    for (std::int64_t i = first; backward ? i > last : i < last;) {
      take(static_cast<std::size_t>(i));
      if (__builtin_add_overflow(i, stride, &i)) break;
    }
  };
  if (value.is_string()) {
    budget.string_of(value.string().size() * 16);
    const std::u32string points = to_code_points(value.string());
    std::string out;
    each([&](std::size_t i) { append_utf8(points[i], &out); });
    return make_string(std::move(out), budget, value.text().markup);
  }
  if (range != nullptr) {
    std::size_t count = 0;
    each([&](std::size_t) { ++count; });
    return Value::of(
        std::make_shared<Range>(range->at(static_cast<std::size_t>(first)), range->step() * stride, count));
  }
  const Items all = iterate(value, budget);
  Items items;
  each([&](std::size_t i) { items.push_back(all[i]); });
  return value.is(Kind::tuple) ? Value::tuple(std::move(items)) : Value::list(std::move(items));
}

}  // namespace chorus::jinja

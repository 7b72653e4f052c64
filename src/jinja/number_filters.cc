// Filters on numbers and conversions to them.
#include <array>
#include <charconv>
#include <cmath>
#include <cstdlib>

#include "jinja/builtins.h"
#include "jinja/operators.h"
#include "jinja/text.h"

namespace chorus::jinja {
namespace {

using I = Interpreter;
using V = Value;

// Digits with single underscores between them, as int() and float() take them, in lower case.
std::optional<String> plain_digits(std::string_view text, Budget& budget) {
  text = strip_left(strip_right(text));
  String out(budget);
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '_') {
      out.push_back(text[i] >= 'A' && text[i] <= 'Z' ? static_cast<char>(text[i] | 0x20) : text[i]);
      continue;
    }
    const auto digit = [&](std::size_t at) {
      return at < text.size() && std::isalnum(static_cast<unsigned char>(text[at])) != 0;
    };
    if (i == 0 || !digit(i - 1) || !digit(i + 1)) return std::nullopt;
  }
  if (out.empty()) return std::nullopt;
  return out;
}

std::optional<Integer> parse_integer(std::string_view source, std::int64_t base, Budget& budget) {
  const auto text = plain_digits(source, budget);
  if (!text) return std::nullopt;
  const bool negative = (*text)[0] == '-';
  std::string_view digits = std::string_view(*text).substr((*text)[0] == '-' || (*text)[0] == '+' ? 1 : 0);
  if (digits.size() > 1 && digits[0] == '0') {
    const int named = digits[1] == 'x' ? 16 : digits[1] == 'o' ? 8 : digits[1] == 'b' ? 2 : 0;
    if (named != 0 && (base == named || base == 0)) {
      digits.remove_prefix(2);
      base = named;
    }
  }
  if (base == 0) base = 10;
  if (base < 2 || base > 36) return std::nullopt;
  const auto number = parse_digits(digits, static_cast<int>(base));
  return number && negative ? -*number : number;
}

std::optional<double> parse_real(std::string_view source, Budget& budget) {
  const auto lower = plain_digits(source, budget);
  if (!lower) return std::nullopt;
  const bool has_sign = (*lower)[0] == '+' || (*lower)[0] == '-';
  const std::string_view body = std::string_view(*lower).substr(has_sign ? 1 : 0);
  if (body.empty() || body[0] == '+' || body[0] == '-' || body.starts_with("0x") ||
      body.find('(') != std::string_view::npos)
    return std::nullopt;
  char* end = nullptr;
  const double number = std::strtod(lower->c_str(), &end);
  if (end != lower->c_str() + lower->size()) return std::nullopt;
  return number;
}

Integer truncate(double number) {
  if (std::isnan(number)) raise("ValueError", "cannot convert float NaN to integer");
  if (!(std::fabs(number) < 0x1p127))
    raise("OverflowError", "cannot convert float {} to an integer of 128 bits", float_repr(number));
  return static_cast<Integer>(number);
}

Value to_integer(I& i, const V& value, const Bound& a) {
  if (value.is_undefined()) value.raise_undefined();
  const V otherwise = a[0] != nullptr ? *a[0] : V::of(0);
  if (value.is_integral()) return V::of(value.integer());
  if (value.is(Kind::real)) return std::isfinite(value.real()) ? V::of(truncate(value.real())) : otherwise;
  if (!value.is_string()) return otherwise;
  if (const auto number = parse_integer(value.string(), a.integer(1, 10), i.budget())) return V::of(*number);
  const auto real = parse_real(value.string(), i.budget());
  return real && std::isfinite(*real) ? V::of(truncate(*real)) : otherwise;
}

Value to_real(I& i, const V& value, const Bound& a) {
  if (value.is_undefined()) value.raise_undefined();
  if (value.is_number()) return V::of(value.real());
  const auto real = value.is_string() ? parse_real(value.string(), i.budget()) : std::nullopt;
  return real ? V::of(*real) : a[0] != nullptr ? *a[0] : V::of(0.0);
}

double number_of(const V& value) {
  if (value.is_undefined()) value.raise_undefined();
  if (!value.is_number()) raise("TypeError", "type {} doesn't define __round__ method", value.type_name());
  return value.real();
}

// round(x, n) goes by the decimal digits, half to even, as printing does.
double round_decimal(double number, std::int64_t precision) {
  if (!std::isfinite(number) || precision > 300) return number;
  if (precision < 0) {
    const double scale = std::pow(10.0, -static_cast<double>(precision));
    return std::isinf(scale) ? 0.0 * number : std::nearbyint(number / scale) * scale;
  }
  return std::strtod(fmt::format("{:.{}f}", number, static_cast<int>(precision)).c_str(), nullptr);
}

Value round(I& i, const V& value, const Bound& a) {
  const std::int64_t precision = a.integer(0, 0);
  i.budget().step(precision > 0 && precision <= 300 ? static_cast<std::uint64_t>(precision) : 1);
  const std::string_view method = a.text(1, "common");
  if (method != "common" && method != "ceil" && method != "floor") {
    raise("FilterArgumentError", "method must be common, ceil or floor");
  }
  const double number = number_of(value);
  if (method == "common") {
    if (value.is_integral() && precision >= 0) return V::of(value.integer());
    const double rounded = round_decimal(number, precision);
    return value.is_integral() ? V::of(truncate(rounded)) : V::of(rounded);
  }
  const double scale = std::pow(10.0, static_cast<double>(precision));
  return V::of((method == "ceil" ? std::ceil(number * scale) : std::floor(number * scale)) / scale);
}

Value absolute(I&, const V& value, const Bound&) {
  if (value.is_undefined()) value.raise_undefined();
  if (value.is(Kind::real)) return V::of(std::fabs(value.real()));
  if (!value.is_integral()) raise("TypeError", "bad operand type for abs(): '{}'", value.type_name());
  return value.integer() < 0 ? negate(value) : V::of(value.integer());
}

Value file_size(I& i, const V& value, const Bound& a) {
  const bool binary = a.flag(0, false);
  const double base = binary ? 1024 : 1000;
  const auto bytes =
      value.is_string() ? parse_real(value.string(), i.budget()) : std::optional<double>(number_of(value));
  if (!bytes) raise("ValueError", "could not convert string to float: {}", shown(value.string()));
  if (*bytes == 1) return V::of("1 Byte", i.budget());
  if (*bytes < base) return V::of(fmt::format("{} Bytes", truncate(*bytes)), i.budget());
  static constexpr std::string_view prefixes = "kMGTPEZY";
  double unit = base * base;
  std::size_t index = 0;
  while (index + 1 < prefixes.size() && *bytes >= unit) {
    unit *= base;
    ++index;
  }
  const std::string name =
      binary ? fmt::format("{}iB", index == 0 ? 'K' : prefixes[index]) : fmt::format("{}B", prefixes[index]);
  i.budget().step(8);  // it may have 300 digits
  return V::of(fmt::format("{:.1f} {}", base * *bytes / unit, name), i.budget());
}

constexpr std::array<Function, 5> filters = {{
    {"int", "default base", to_integer},
    {"float", "default", to_real},
    {"round", "precision method", round},
    {"abs", "", absolute},
    {"filesizeformat", "binary", file_size},
}};

}  // namespace

std::span<const Function> number_filters() {
  return filters;
}

}  // namespace chorus::jinja

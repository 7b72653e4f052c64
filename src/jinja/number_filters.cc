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

// Digits with single underscores between them, as int() and float() take them.
std::optional<std::string> without_underscores(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '_') {
      out.push_back(text[i]);
      continue;
    }
    const auto digit = [&](std::size_t at) {
      return at < text.size() && std::isalnum(static_cast<unsigned char>(text[at])) != 0;
    };
    if (i == 0 || !digit(i - 1) || !digit(i + 1)) return std::nullopt;
  }
  return out;
}

std::optional<Integer> parse_integer(std::string_view source, std::int64_t base) {
  auto text = without_underscores(strip_left(strip_right(source)));
  if (!text || text->empty()) return std::nullopt;
  const bool negative = (*text)[0] == '-';
  std::string digits = text->substr((*text)[0] == '-' || (*text)[0] == '+' ? 1 : 0);
  if (digits.size() > 1 && digits[0] == '0') {
    const char prefix = static_cast<char>(digits[1] | 0x20);
    const int named = prefix == 'x' ? 16 : prefix == 'o' ? 8 : prefix == 'b' ? 2 : 0;
    if (named != 0 && (base == named || base == 0)) {
      digits.erase(0, 2);
      base = named;
    }
  }
  if (base == 0) base = 10;
  if (base < 2 || base > 36) return std::nullopt;
  const auto number = parse_digits(digits, static_cast<int>(base));
  return number && negative ? -*number : number;
}

std::optional<double> parse_real(std::string_view source) {
  const auto text = without_underscores(strip_left(strip_right(source)));
  if (!text || text->empty()) return std::nullopt;
  std::string lower = to_lower(*text);
  const bool has_sign = lower[0] == '+' || lower[0] == '-';
  const std::string body = lower.substr(has_sign ? 1 : 0);
  if (body.empty() || body[0] == '+' || body[0] == '-' || body.starts_with("0x") || body.find('(') != std::string::npos)
    return std::nullopt;
  char* end = nullptr;
  const double number = std::strtod(lower.c_str(), &end);
  if (end != lower.c_str() + lower.size()) return std::nullopt;
  return number;
}

Integer truncate(double number) {
  if (std::isnan(number)) raise("ValueError", "cannot convert float NaN to integer");
  if (!(std::fabs(number) < 0x1p127))
    raise("OverflowError", "cannot convert float {} to an integer of 128 bits", float_repr(number));
  return static_cast<Integer>(number);
}

Value to_integer(I&, const V& value, const Bound& a) {
  if (value.is_undefined()) value.raise_undefined();
  const V otherwise = a[0] != nullptr ? *a[0] : V::of(0);
  if (value.is_integral()) return V::of(value.integer());
  if (value.is(Kind::real)) return std::isfinite(value.real()) ? V::of(truncate(value.real())) : otherwise;
  if (!value.is_string()) return otherwise;
  if (const auto number = parse_integer(value.string(), a.integer(1, 10))) return V::of(*number);
  const auto real = parse_real(value.string());
  return real && std::isfinite(*real) ? V::of(truncate(*real)) : otherwise;
}

Value to_real(I&, const V& value, const Bound& a) {
  if (value.is_undefined()) value.raise_undefined();
  if (value.is_number()) return V::of(value.real());
  const auto real = value.is_string() ? parse_real(value.string()) : std::nullopt;
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
    const double scale = std::pow(10.0, static_cast<double>(-precision));
    return std::isinf(scale) ? 0.0 * number : std::nearbyint(number / scale) * scale;
  }
  return std::strtod(fmt::format("{:.{}f}", number, static_cast<int>(precision)).c_str(), nullptr);
}

Value round(I&, const V& value, const Bound& a) {
  const std::int64_t precision = a.integer(0, 0);
  const std::string method = a.text(1, "common");
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

Value file_size(I&, const V& value, const Bound& a) {
  const bool binary = a.flag(0, false);
  const double base = binary ? 1024 : 1000;
  const auto bytes = value.is_string() ? parse_real(value.string()) : std::optional<double>(number_of(value));
  if (!bytes) raise("ValueError", "could not convert string to float: {}", quote(value.string()));
  if (*bytes == 1) return V::of("1 Byte");
  if (*bytes < base) return V::of(fmt::format("{} Bytes", static_cast<std::int64_t>(*bytes)));
  static constexpr std::string_view prefixes = "mgtpezy";
  double unit = base * base;
  std::size_t index = 0;
  while (index + 1 < prefixes.size() && *bytes >= unit) {
    unit *= base;
    ++index;
  }
  const std::string name =
      binary ? fmt::format("{}iB", index == 0 ? 'K' : prefixes[index]) : fmt::format("{}B", prefixes[index]);
  return V::of(fmt::format("{:.1f} {}", base * *bytes / unit, name));
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

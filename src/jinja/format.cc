// printf-style formatting (str % value) and str.format.
#include <array>
#include <cmath>
#include <cstdio>

#include "jinja/interpreter.h"
#include "jinja/operators.h"
#include "jinja/text.h"

namespace chorus::jinja {
namespace {

constexpr std::int64_t width_max = 1 << 20;

struct Specification {
  std::string fill = " ";
  char align = 0;  // < > ^ =, 0: the type's own
  char sign = '-';
  bool alternate = false;
  bool zero = false;
  char grouping = 0;
  std::int64_t width = 0;
  std::int64_t precision = -1;
  char type = 0;
};

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

std::int64_t read_number(std::string_view text, std::size_t* at) {
  std::int64_t number = 0;
  for (; *at < text.size() && is_digit(text[*at]); ++*at) {
    number = number * 10 + (text[*at] - '0');
    if (number > width_max) raise("ValueError", "a format's width or precision is over {}", width_max);
  }
  return number;
}

std::string repeated(const std::string& text, std::int64_t count) {
  std::string out;
  for (std::int64_t i = 0; i < count; ++i) out += text;
  return out;
}

// `prefix`: sign and 0x, before zeros that fill.
std::string pad(const Specification& spec, const std::string& prefix, const std::string& body, char default_align) {
  const auto length = static_cast<std::int64_t>(count_code_points(prefix) + count_code_points(body));
  const std::int64_t missing = spec.width - length;
  if (missing <= 0) return prefix + body;
  const char align = spec.align != 0 ? spec.align : spec.zero ? '=' : default_align;
  const std::string fill = spec.align == 0 && spec.zero ? "0" : spec.fill;
  if (align == '<') return prefix + body + repeated(fill, missing);
  if (align == '>') return repeated(fill, missing) + prefix + body;
  if (align == '^') return repeated(fill, missing / 2) + prefix + body + repeated(fill, missing - missing / 2);
  return prefix + repeated(fill, missing) + body;
}

std::string grouped(const std::string& digits, char separator) {
  if (separator == 0) return digits;
  std::size_t whole = 0;
  while (whole < digits.size() && is_digit(digits[whole])) ++whole;
  std::string out;
  for (std::size_t i = 0; i < whole; ++i) {
    if (i != 0 && (whole - i) % 3 == 0) out.push_back(separator);
    out.push_back(digits[i]);
  }
  return out + digits.substr(whole);
}

std::string sign_of(const Specification& spec, bool negative) {
  if (negative) return "-";
  return spec.sign == '+' || spec.sign == ' ' ? std::string(1, spec.sign) : "";
}

std::string print_real(double value, char type, std::int64_t precision, bool alternate) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return "inf";
  const char* format = nullptr;
  switch (type) {
    case 'e':
      format = alternate ? "%#.*e" : "%.*e";
      break;
    case 'E':
      format = alternate ? "%#.*E" : "%.*E";
      break;
    case 'g':
      format = alternate ? "%#.*g" : "%.*g";
      break;
    case 'G':
      format = alternate ? "%#.*G" : "%.*G";
      break;
    default:
      format = alternate ? "%#.*f" : "%.*f";
      break;
  }
  const int digits = static_cast<int>(precision < 0 ? 6 : precision);
  std::string out(static_cast<std::size_t>(std::snprintf(nullptr, 0, format, digits, value)), ' ');
  std::snprintf(out.data(), out.size() + 1, format, digits, value);
  return out;
}

std::string real_text(const Specification& spec, double value) {
  const double magnitude = std::fabs(value);
  std::string body;
  if (spec.type == 0 && spec.precision < 0) {
    body = float_repr(magnitude);
  } else if (spec.type == 0) {
    body = print_real(magnitude, 'g', std::max<std::int64_t>(spec.precision, 1), false);
    if (body.find_first_not_of("0123456789") == std::string::npos) body += ".0";
  } else if (spec.type == '%') {
    body = print_real(magnitude * 100, 'f', spec.precision, spec.alternate) + "%";
  } else {
    body = print_real(magnitude, spec.type, spec.precision, spec.alternate);
  }
  return pad(spec, sign_of(spec, std::signbit(value) && !std::isnan(value)), grouped(body, spec.grouping), '>');
}

std::string integer_text(const Specification& spec, Integer value) {
  using Magnitude = unsigned __int128;
  const Magnitude magnitude = value < 0 ? ~static_cast<Magnitude>(value) + 1 : static_cast<Magnitude>(value);
  std::string prefix = sign_of(spec, value < 0);
  std::string body;
  switch (spec.type) {
    case 'x':
      body = fmt::format("{:x}", magnitude);
      break;
    case 'X':
      body = fmt::format("{:X}", magnitude);
      break;
    case 'o':
      body = fmt::format("{:o}", magnitude);
      break;
    case 'b':
      body = fmt::format("{:b}", magnitude);
      break;
    case 'c':
      append_utf8(static_cast<char32_t>(std::min<Magnitude>(magnitude, 0x110000)), &body);
      break;
    default:
      body = fmt::format("{}", magnitude);
  }
  if (spec.alternate && (spec.type == 'x' || spec.type == 'X' || spec.type == 'o' || spec.type == 'b')) {
    prefix += std::string("0") + spec.type;
  }
  if (spec.type != 'c' && spec.precision > static_cast<std::int64_t>(body.size())) {
    body.insert(0, static_cast<std::size_t>(spec.precision) - body.size(), '0');
  }
  return pad(spec, prefix, grouped(body, spec.grouping), '>');
}

std::string text_of(const Specification& spec, const std::string& text) {
  if (spec.precision < 0) return pad(spec, "", text, '<');
  const std::u32string points = to_code_points(text);
  return pad(spec, "", to_utf8(std::u32string_view(points).substr(0, static_cast<std::size_t>(spec.precision))), '<');
}

Specification parse_specification(std::string_view text) {
  Specification spec;
  static constexpr std::string_view aligns = "<>^=";
  const std::u32string points = to_code_points(text);
  std::size_t at = 0;
  if (points.size() > 1 && points[1] < 0x80 && aligns.find(static_cast<char>(points[1])) != std::string_view::npos) {
    spec.fill.clear();
    append_utf8(points[0], &spec.fill);
    at = spec.fill.size();
    spec.align = text[at++];
  } else if (!text.empty() && aligns.find(text[0]) != std::string_view::npos) {
    spec.align = text[at++];
  }
  const auto peek = [&] { return at < text.size() ? text[at] : '\0'; };
  if (peek() == '+' || peek() == '-' || peek() == ' ') spec.sign = text[at++];
  if (peek() == '#') spec.alternate = text[at++] == '#';
  if (peek() == '0') {
    spec.zero = true;
    ++at;
  }
  spec.width = read_number(text, &at);
  if (peek() == ',' || peek() == '_') spec.grouping = text[at++];
  if (peek() == '.') {
    ++at;
    if (!is_digit(peek())) raise("ValueError", "Format specifier missing precision");
    spec.precision = read_number(text, &at);
  }
  if (at < text.size()) spec.type = text[at++];
  if (at != text.size()) raise("ValueError", "Invalid format specifier");
  return spec;
}

// One conversion of `format % value`: *at is after the '%'.
class Percent {
 public:
  Percent(std::string_view format, const Value& value, bool escape, Budget* budget)
      : format_(format), value_(value), escape_(escape), budget_(budget) {}

  std::string run() {
    std::string out;
    for (at_ = 0; at_ < format_.size();) {
      if (format_[at_] != '%') {
        out.push_back(format_[at_++]);
        continue;
      }
      ++at_;
      out += conversion();
      budget_->string_of(out.size() / 16);
    }
    const bool all_used = value_.is(Kind::tuple) ? used_ == value_.items().size() : used_ == 1;
    if (!all_used && !by_name_ && !value_.is(Kind::dict) && !value_.is(Kind::list)) {
      raise("TypeError", "not all arguments converted during string formatting");
    }
    return out;
  }

 private:
  const Value& next() {
    const std::size_t index = used_++;
    if (value_.is(Kind::tuple) ? index >= value_.items().size() : index > 0) {
      raise("TypeError", "not enough arguments for format string");
    }
    return value_.is(Kind::tuple) ? value_.items()[index] : value_;
  }

  const Value& named() {
    const std::size_t close = format_.find(')', at_);
    if (close == std::string_view::npos) raise("ValueError", "incomplete format key");
    if (!value_.is(Kind::dict)) raise("TypeError", "format requires a mapping");
    const std::string_view name = format_.substr(at_ + 1, close - at_ - 1);
    const Value* found = value_.dict().find(name);
    if (found == nullptr) raise("KeyError", "{}", quote(name));
    at_ = close + 1;
    by_name_ = true;
    return *found;
  }

  std::string conversion() {
    Specification spec;
    const Value* value = nullptr;
    if (at_ < format_.size() && format_[at_] == '(') value = &named();
    for (; at_ < format_.size() && std::string_view("-+ #0").find(format_[at_]) != std::string_view::npos; ++at_) {
      if (format_[at_] == '-') spec.align = '<';
      if (format_[at_] == '+') spec.sign = '+';
      if (format_[at_] == ' ' && spec.sign != '+') spec.sign = ' ';
      if (format_[at_] == '#') spec.alternate = true;
      if (format_[at_] == '0') spec.zero = true;
    }
    spec.width = star_or_number();
    if (at_ < format_.size() && format_[at_] == '.') {
      ++at_;
      spec.precision = star_or_number();
    }
    if (at_ >= format_.size()) raise("ValueError", "incomplete format");
    const char type = format_[at_++];
    if (type == '%') return "%";
    return convert(spec, type, value != nullptr ? *value : next());
  }

  std::int64_t star_or_number() {
    if (at_ >= format_.size() || format_[at_] != '*') return read_number(format_, &at_);
    ++at_;
    const Value& value = next();
    if (!value.is_integral() || value.integer() < 0 || value.integer() > width_max) raise("TypeError", "* wants int");
    return value.index();
  }

  std::string convert(Specification spec, char type, const Value& value) {
    switch (type) {
      case 's':
      case 'r':
      case 'a': {
        spec.zero = false;
        if (spec.align == 0) spec.align = '>';
        const std::string text = type == 's' ? to_text(value, *budget_) : repr(value, *budget_);
        return text_of(spec, escape_ && !value.is_markup() ? escape_html(text) : text);
      }
      case 'd':
      case 'i':
      case 'u':
      case 'x':
      case 'X':
      case 'o': {
        if (value.is_undefined()) value.raise_undefined();
        if (!value.is_number() || (type != 'd' && type != 'i' && type != 'u' && !value.is_integral())) {
          raise("TypeError", "%{} format: a real number is required, not {}", type, value.type_name());
        }
        spec.type = type == 'i' || type == 'u' ? 'd' : type;
        if (value.is(Kind::real) && !(std::fabs(value.real()) < 9e18))
          raise("OverflowError", "cannot convert float to integer");
        return integer_text(spec, value.is(Kind::real) ? static_cast<Integer>(value.real()) : value.integer());
      }
      case 'e':
      case 'E':
      case 'f':
      case 'F':
      case 'g':
      case 'G':
        if (value.is_undefined()) value.raise_undefined();
        if (!value.is_number()) raise("TypeError", "must be real number, not {}", value.type_name());
        spec.type = type;
        return real_text(spec, value.real());
      case 'c': {
        if (value.is_string() && value.text().length == 1) return text_of(spec, value.string());
        if (!value.is_integral()) raise("TypeError", "%c requires int or char");
        spec.type = 'c';
        return integer_text(spec, value.integer());
      }
      default:
        raise("ValueError", "unsupported format character '{}'", type);
    }
  }

  std::string_view format_;
  const Value& value_;
  bool escape_;
  Budget* budget_;
  std::size_t at_ = 0;
  std::size_t used_ = 0;
  bool by_name_ = false;
};

class Braces {
 public:
  Braces(const Arguments& arguments, Interpreter* interpreter) : arguments_(arguments), interpreter_(interpreter) {}

  std::string run(std::string_view format, int depth) {
    std::string out;
    for (std::size_t at = 0; at < format.size();) {
      const char c = format[at];
      if ((c == '{' || c == '}') && at + 1 < format.size() && format[at + 1] == c) {
        out.push_back(c);
        at += 2;
      } else if (c == '}') {
        raise("ValueError", "Single '}}' encountered in format string");
      } else if (c == '{') {
        const std::size_t end = field_end(format, at + 1);
        out += field(format.substr(at + 1, end - at - 1), depth);
        interpreter_->budget().string_of(out.size() / 16);
        at = end + 1;
      } else {
        out.push_back(c);
        ++at;
      }
    }
    return out;
  }

 private:
  static std::size_t field_end(std::string_view format, std::size_t at) {
    for (int open = 1; at < format.size(); ++at) {
      if (format[at] == '{') ++open;
      if (format[at] == '}' && --open == 0) return at;
    }
    raise("ValueError", "expected '}}' before end of string");
  }

  std::string field(std::string_view text, int depth) {
    if (depth > 1) raise("ValueError", "Max string recursion exceeded");
    const std::size_t name_end = text.find_first_of("!:");
    std::string_view rest = name_end == std::string_view::npos ? std::string_view() : text.substr(name_end);
    const Value value = lookup(text.substr(0, name_end));
    char conversion = 0;
    if (rest.starts_with("!") && rest.size() > 1) {
      conversion = rest[1];
      rest.remove_prefix(2);
    }
    const std::string spec = rest.starts_with(":") ? run(rest.substr(1), depth + 1) : "";
    Budget& budget = interpreter_->budget();
    if (conversion == 'r' || conversion == 'a') return format_value(Value::of(repr(value, budget)), spec, budget);
    if (conversion == 's') return format_value(Value::of(to_text(value, budget)), spec, budget);
    return format_value(value, spec, budget);
  }

  Value lookup(std::string_view path) {
    std::size_t at = std::min(path.find_first_of(".["), path.size());
    Value value = argument(path.substr(0, at));
    while (at < path.size()) {
      const bool is_attribute = path[at] == '.';
      const std::size_t end = is_attribute ? path.find_first_of(".[", at + 1) : path.find(']', at);
      if (!is_attribute && end == std::string_view::npos) raise("ValueError", "Missing ']' in format string");
      const std::string_view name = path.substr(at + 1, std::min(end, path.size()) - at - 1);
      value = is_attribute ? interpreter_->attribute(value, name) : interpreter_->item(value, key_of(name));
      if (value.is_undefined()) value.raise_undefined();
      at = std::min(is_attribute ? end : end + 1, path.size());
      if (!is_attribute && at < path.size() && path[at] != '.' && path[at] != '[') {
        raise("ValueError", "Only '.' or '[' may follow ']' in format field specifier");
      }
    }
    return value;
  }

  static bool is_number(std::string_view text) {
    return !text.empty() && text.find_first_not_of("0123456789") == std::string_view::npos;
  }
  static Value key_of(std::string_view name) {
    std::size_t at = 0;
    return is_number(name) ? Value::of(read_number(name, &at)) : Value::of(name);
  }

  Value argument(std::string_view name) {
    if (name.empty() || is_number(name)) {
      std::size_t at = 0;
      const std::size_t index = name.empty() ? next_++ : static_cast<std::size_t>(read_number(name, &at));
      if (index >= arguments_.positional.size()) {
        raise("IndexError", "Replacement index {} out of range for positional args tuple", index);
      }
      return arguments_.positional[index];
    }
    for (const auto& [known, value] : arguments_.named) {
      if (known == name) return value;
    }
    raise("KeyError", "{}", quote(name));
  }

  const Arguments& arguments_;
  Interpreter* interpreter_;
  std::size_t next_ = 0;
};

}  // namespace

std::string format_percent(std::string_view format, const Value& value, bool escape, Budget& budget) {
  return Percent(format, value, escape, &budget).run();
}

std::string format_braces(std::string_view format, const Arguments& arguments, Interpreter& interpreter) {
  return Braces(arguments, &interpreter).run(format, 0);
}

std::string format_value(const Value& value, std::string_view specification, Budget& budget) {
  if (specification.empty()) return to_text(value, budget);
  const Specification spec = parse_specification(specification);
  const std::string_view real_types = "eEfFgG%";
  if (value.is_string() && (spec.type == 0 || spec.type == 's')) return text_of(spec, value.string());
  if (value.is_number() && !(value.is(Kind::boolean) && spec.type == 's')) {
    const bool as_real = real_types.find(spec.type) != std::string_view::npos && spec.type != 0;
    if (value.is(Kind::real) && (spec.type == 0 || as_real)) return real_text(spec, value.real());
    if (value.is_integral() && as_real) return real_text(spec, value.real());
    if (value.is_integral() && std::string_view("dxXobcn").find(spec.type) != std::string_view::npos) {
      return integer_text(spec, value.integer());
    }
    if (value.is_integral() && spec.type == 0) return integer_text(spec, value.integer());
    raise("ValueError", "Unknown format code '{}' for object of type '{}'", spec.type, value.type_name());
  }
  if (value.is_string()) raise("ValueError", "Unknown format code '{}' for object of type 'str'", spec.type);
  raise("TypeError", "unsupported format string passed to {}.__format__", value.type_name());
}

}  // namespace chorus::jinja

// printf-style formatting (str % value) and str.format.
#include <algorithm>
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
  std::array<char, 4> fill_bytes = {' '};  // one character
  std::size_t fill_size = 1;
  char align = 0;  // < > ^ =, 0: the type's own
  char sign = '-';
  bool alternate = false;
  bool zero = false;
  char grouping = 0;
  std::int64_t width = 0;
  std::int64_t precision = -1;
  char type = 0;
  std::string_view fill() const { return {fill_bytes.data(), fill_size}; }
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

// `prefix`: sign and 0x, before zeros that fill.
void pad(const Specification& spec, std::string_view prefix, std::string_view body, char default_align, String* out) {
  const auto length = static_cast<std::int64_t>(count_code_points(prefix) + count_code_points(body));
  const auto missing = static_cast<std::uint64_t>(std::max<std::int64_t>(spec.width - length, 0));
  const char align = spec.align != 0 ? spec.align : spec.zero ? '=' : default_align;
  const std::string_view fill = spec.align == 0 && spec.zero ? "0" : spec.fill();
  const auto repeat = [&](std::uint64_t count) {
    if (count != 0) append_repeated(fill, count, out);
  };
  if (align == '>') repeat(missing);
  if (align == '^') repeat(missing / 2);
  out->append(prefix);
  if (align == '=') repeat(missing);
  out->append(body);
  if (align == '<') repeat(missing);
  if (align == '^') repeat(missing - missing / 2);
}

std::string grouped(std::string_view digits, char separator) {
  if (separator == 0) return std::string(digits);
  std::size_t whole = 0;
  while (whole < digits.size() && is_digit(digits[whole])) ++whole;
  std::string out;
  for (std::size_t i = 0; i < whole; ++i) {
    if (i != 0 && (whole - i) % 3 == 0) out.push_back(separator);
    out.push_back(digits[i]);
  }
  return out.append(digits.substr(whole));
}

std::string sign_of(const Specification& spec, bool negative) {
  if (negative) return "-";
  return spec.sign == '+' || spec.sign == ' ' ? std::string(1, spec.sign) : "";
}

// No double has more digits that are not 0 than this, in any of the formats.
constexpr std::int64_t digits_max = 1100;

// `zeros`: how many more belong behind the digits, where the precision is above digits_max.
std::string print_real(double value, char type, std::int64_t precision, bool alternate, std::int64_t* zeros) {
  *zeros = 0;
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
  if (precision < 0) precision = 6;
  const int digits = static_cast<int>(std::min(precision, digits_max));
  const bool drops_zeros = (type | 0x20) == 'g' && !alternate;
  if (!drops_zeros) *zeros = precision - digits;
  std::string out(static_cast<std::size_t>(std::snprintf(nullptr, 0, format, digits, value)), ' ');
  std::snprintf(out.data(), out.size() + 1, format, digits, value);
  return out;
}

void append_real(const Specification& spec, double value, String* out, Budget& budget) {
  budget.step(4 + static_cast<std::uint64_t>(std::clamp<std::int64_t>(spec.precision, 0, digits_max)) / 8);
  const double magnitude = std::fabs(value);
  std::string body;
  std::int64_t zeros = 0;
  if (spec.type == 0 && spec.precision < 0) {
    body = float_repr(magnitude);
  } else if (spec.type == 0) {
    body = print_real(magnitude, 'g', std::max<std::int64_t>(spec.precision, 1), false, &zeros);
    if (body.find_first_not_of("0123456789") == std::string::npos) body += ".0";
  } else if (spec.type == '%') {
    body = print_real(magnitude * 100, 'f', spec.precision, spec.alternate, &zeros);
  } else {
    body = print_real(magnitude, spec.type, spec.precision, spec.alternate, &zeros);
  }
  String whole(grouped(body, spec.grouping), budget);
  if (zeros > 0) {
    const std::size_t exponent = whole.find_first_of("eE");
    const String tail(exponent == String::npos ? std::string_view() : std::string_view(whole).substr(exponent), budget);
    whole.resize(whole.size() - tail.size());
    append_repeated("0", static_cast<std::uint64_t>(zeros), &whole);
    whole += tail;
  }
  if (spec.type == '%') whole += "%";
  pad(spec, sign_of(spec, std::signbit(value) && !std::isnan(value)), whole, '>', out);
}

void append_integer(const Specification& spec, Integer value, String* out, Budget& budget) {
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
  String digits(budget);
  if (spec.type != 'c' && spec.precision > static_cast<std::int64_t>(body.size())) {
    append_repeated("0", static_cast<std::uint64_t>(spec.precision) - body.size(), &digits);
  }
  digits += body;
  if (spec.grouping != 0) {
    budget.read_characters(digits.size());
    digits = grouped(digits, spec.grouping);
  }
  pad(spec, prefix, digits, '>', out);
}

void append_cut(const Specification& spec, std::string_view text, String* out, Budget& budget) {
  budget.search_bytes(text.size());
  if (spec.precision >= 0) text = text.substr(0, byte_of_character(text, false, spec.precision));
  pad(spec, "", text, '<', out);
}

Specification parse_specification(std::string_view text) {
  Specification spec;
  static constexpr std::string_view aligns = "<>^=";
  std::size_t at = 0;
  const std::size_t second = text.empty() ? 0 : after_character(text, 0);
  if (second < text.size() && aligns.find(text[second]) != std::string_view::npos) {
    spec.fill_size = std::min(second, spec.fill_bytes.size());
    std::copy_n(text.begin(), spec.fill_size, spec.fill_bytes.begin());
    at = second;
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
  Percent(std::string_view format, const Value& value, bool escape, Budget& budget)
      : format_(format), value_(value), escape_(escape), budget_(budget), out_(budget) {}

  String run() {
    for (at_ = 0; at_ < format_.size();) {
      const std::size_t end = std::min(format_.find('%', at_), format_.size());
      out_ += format_.substr(at_, end - at_);
      at_ = end;
      if (at_ == format_.size()) break;
      ++at_;
      budget_.step();
      conversion();
    }
    const bool all_used = value_.is(Kind::tuple) ? used_ == value_.items().size() : used_ == 1;
    if (!all_used && !by_name_ && !value_.is(Kind::dict) && !value_.is(Kind::list)) {
      raise("TypeError", "not all arguments converted during string formatting");
    }
    return std::move(out_);
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
    const Value* found = value_.dict().find(name, budget_);
    if (found == nullptr) raise("KeyError", "{}", shown(name));
    at_ = close + 1;
    by_name_ = true;
    return *found;
  }

  void conversion() {
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
    if (type == '%') return out_.push_back('%');
    convert(spec, type, value != nullptr ? *value : next());
  }

  std::int64_t star_or_number() {
    if (at_ >= format_.size() || format_[at_] != '*') return read_number(format_, &at_);
    ++at_;
    const Value& value = next();
    if (!value.is_integral() || value.integer() < 0 || value.integer() > width_max) raise("TypeError", "* wants int");
    return value.index();
  }

  void convert(Specification spec, char type, const Value& value) {
    switch (type) {
      case 's':
      case 'r':
      case 'a': {
        spec.zero = false;
        if (spec.align == 0) spec.align = '>';
        String text(budget_);
        type == 's' ? append_text(value, &text, budget_) : append_repr(value, &text, budget_);
        if (!escape_ || value.is_markup()) return append_cut(spec, text, &out_, budget_);
        budget_.read_characters(text.size());
        String escaped(budget_);
        append_escaped(text, &escaped);
        return append_cut(spec, escaped, &out_, budget_);
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
        return append_integer(spec, value.is(Kind::real) ? static_cast<Integer>(value.real()) : value.integer(), &out_,
                              budget_);
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
        return append_real(spec, value.real(), &out_, budget_);
      case 'c': {
        if (value.is_string() && value.text().length == 1) return append_cut(spec, value.string(), &out_, budget_);
        if (!value.is_integral()) raise("TypeError", "%c requires int or char");
        spec.type = 'c';
        return append_integer(spec, value.integer(), &out_, budget_);
      }
      default:
        raise("ValueError", "unsupported format character '{}'", type);
    }
  }

  std::string_view format_;
  const Value& value_;
  bool escape_;
  Budget& budget_;
  String out_;
  std::size_t at_ = 0;
  std::size_t used_ = 0;
  bool by_name_ = false;
};

class Braces {
 public:
  Braces(const Arguments& arguments, Interpreter& interpreter)
      : arguments_(arguments), interpreter_(interpreter), budget_(interpreter.budget()) {}

  String run(std::string_view format, int depth) {
    String out(budget_);
    for (std::size_t at = 0; at < format.size();) {
      const char c = format[at];
      if ((c == '{' || c == '}') && at + 1 < format.size() && format[at + 1] == c) {
        out.push_back(c);
        at += 2;
      } else if (c == '}') {
        raise("ValueError", "Single '}}' encountered in format string");
      } else if (c == '{') {
        const std::size_t end = field_end(format, at + 1);
        budget_.step();
        field(format.substr(at + 1, end - at - 1), depth, &out);
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

  void field(std::string_view text, int depth, String* out) {
    if (depth > 1) raise("ValueError", "Max string recursion exceeded");
    const std::size_t name_end = text.find_first_of("!:");
    std::string_view rest = name_end == std::string_view::npos ? std::string_view() : text.substr(name_end);
    const Value value = lookup(text.substr(0, name_end));
    char conversion = 0;
    if (rest.starts_with("!") && rest.size() > 1) {
      conversion = rest[1];
      rest.remove_prefix(2);
    }
    const String spec = rest.starts_with(":") ? run(rest.substr(1), depth + 1) : String(budget_);
    if (conversion == 0) return append_formatted(value, spec, out, budget_);
    String made(budget_);
    if (conversion == 'r' || conversion == 'a') append_repr(value, &made, budget_);
    if (conversion == 's') append_text(value, &made, budget_);
    if (made.empty() && conversion != 's') return append_formatted(value, spec, out, budget_);
    append_formatted(Value::of(std::move(made)), spec, out, budget_);
  }

  Value lookup(std::string_view path) {
    std::size_t at = std::min(path.find_first_of(".["), path.size());
    Value value = argument(path.substr(0, at));
    while (at < path.size()) {
      const bool is_attribute = path[at] == '.';
      const std::size_t end = is_attribute ? path.find_first_of(".[", at + 1) : path.find(']', at);
      if (!is_attribute && end == std::string_view::npos) raise("ValueError", "Missing ']' in format string");
      const std::string_view name = path.substr(at + 1, std::min(end, path.size()) - at - 1);
      value = is_attribute ? interpreter_.attribute(value, name) : interpreter_.item(value, key_of(name));
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
  Value key_of(std::string_view name) {
    std::size_t at = 0;
    return is_number(name) ? Value::of(read_number(name, &at)) : Value::of(name, budget_);
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
    budget_.read_items(arguments_.named.size());
    for (const Argument& argument : arguments_.named) {
      if (argument.name == name) return argument.value;
    }
    raise("KeyError", "{}", shown(name));
  }

  const Arguments& arguments_;
  Interpreter& interpreter_;
  Budget& budget_;
  std::size_t next_ = 0;
};

}  // namespace

String format_percent(std::string_view format, const Value& value, bool escape, Budget& budget) {
  return Percent(format, value, escape, budget).run();
}

String format_braces(std::string_view format, const Arguments& arguments, Interpreter& interpreter) {
  return Braces(arguments, interpreter).run(format, 0);
}

void append_formatted(const Value& value, std::string_view specification, String* out, Budget& budget) {
  if (specification.empty()) return append_text(value, out, budget);
  budget.search_bytes(specification.size());
  const Specification spec = parse_specification(specification);
  const std::string_view real_types = "eEfFgG%";
  if (value.is_string() && (spec.type == 0 || spec.type == 's')) return append_cut(spec, value.string(), out, budget);
  if (value.is_number() && !(value.is(Kind::boolean) && spec.type == 's')) {
    const bool as_real = real_types.find(spec.type) != std::string_view::npos && spec.type != 0;
    if (value.is(Kind::real) && (spec.type == 0 || as_real)) return append_real(spec, value.real(), out, budget);
    if (value.is_integral() && as_real) return append_real(spec, value.real(), out, budget);
    if (value.is_integral() &&
        (spec.type == 0 || std::string_view("dxXobcn").find(spec.type) != std::string_view::npos)) {
      return append_integer(spec, value.integer(), out, budget);
    }
    raise("ValueError", "Unknown format code '{}' for object of type '{}'", spec.type, value.type_name());
  }
  if (value.is_string()) raise("ValueError", "Unknown format code '{}' for object of type 'str'", spec.type);
  raise("TypeError", "unsupported format string passed to {}.__format__", value.type_name());
}

}  // namespace chorus::jinja

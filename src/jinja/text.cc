#include "jinja/text.h"

#include <fmt/format.h>
#include <unicode/locid.h>
#include <unicode/uchar.h>
#include <unicode/unistr.h>
#include <unicode/utf8.h>

#include <array>
#include <charconv>
#include <cmath>

namespace chorus::jinja {
namespace {

UChar32 as_icu(char32_t code_point) {
  return static_cast<UChar32>(code_point);
}

icu::UnicodeString to_icu(std::string_view text) {
  return icu::UnicodeString::fromUTF8(icu::StringPiece(text.data(), static_cast<int32_t>(text.size())));
}

std::string from_icu(const icu::UnicodeString& text) {
  std::string out;
  text.toUTF8String(out);
  return out;
}

bool is_cased(char32_t code_point) {
  return u_hasBinaryProperty(as_icu(code_point), UCHAR_LOWERCASE) ||
         u_hasBinaryProperty(as_icu(code_point), UCHAR_UPPERCASE) || u_istitle(as_icu(code_point));
}

std::string title_of(char32_t code_point) {
  // Full mapping of one character: ICU's string function with no break iterator titles the first character.
  icu::UnicodeString one(as_icu(code_point));
  return from_icu(one.toTitle(nullptr, icu::Locale::getRoot()));
}

bool is_printable(char32_t code_point) {
  if (code_point == ' ') return true;
  switch (u_charType(as_icu(code_point))) {
    case U_CONTROL_CHAR:
    case U_FORMAT_CHAR:
    case U_SURROGATE:
    case U_PRIVATE_USE_CHAR:
    case U_UNASSIGNED:
    case U_LINE_SEPARATOR:
    case U_PARAGRAPH_SEPARATOR:
    case U_SPACE_SEPARATOR:
      return false;
    default:
      return true;
  }
}

bool is_line_end(char32_t c) {
  return (c >= 0x0a && c <= 0x0d) || (c >= 0x1c && c <= 0x1e) || c == 0x85 || c == 0x2028 || c == 0x2029;
}

bool has_numeric_type(char32_t code_point, int at_most) {
  const int type = u_getIntPropertyValue(as_icu(code_point), UCHAR_NUMERIC_TYPE);
  return type != U_NT_NONE && type <= at_most;
}

bool is_letter(char32_t code_point) {
  return (U_GET_GC_MASK(as_icu(code_point)) & U_GC_L_MASK) != 0;
}

// upper and lower: every cased character is of the case, and there is one.
bool all_cased(const std::u32string& text, UProperty property) {
  bool any = false;
  for (const char32_t c : text) {
    if (!is_cased(c)) continue;
    if (!u_hasBinaryProperty(as_icu(c), property)) return false;
    any = true;
  }
  return any;
}

bool is_title(const std::u32string& text) {
  bool any = false;
  bool after_cased = false;
  for (const char32_t c : text) {
    const bool upper = u_hasBinaryProperty(as_icu(c), UCHAR_UPPERCASE) || u_istitle(as_icu(c));
    if (is_cased(c) && upper == after_cased) return false;
    after_cased = is_cased(c);
    any = any || after_cased;
  }
  return any;
}

}  // namespace

bool is_utf8(std::string_view text) {
  const auto* bytes = reinterpret_cast<const std::uint8_t*>(text.data());
  for (std::size_t i = 0; i < text.size();) {
    UChar32 c = 0;
    U8_NEXT(bytes, i, text.size(), c);
    if (c < 0) return false;
  }
  return true;
}

char32_t next_code_point(std::string_view text, std::size_t* at) {
  const auto* bytes = reinterpret_cast<const std::uint8_t*>(text.data());
  UChar32 c = 0;
  U8_NEXT_OR_FFFD(bytes, *at, text.size(), c);
  return static_cast<char32_t>(c);
}

std::u32string to_code_points(std::string_view text) {
  std::u32string out;
  out.reserve(text.size());
  for (std::size_t i = 0; i < text.size();) out.push_back(next_code_point(text, &i));
  return out;
}

void append_utf8(char32_t code_point, std::string* out) {
  if (code_point > 0x10ffff || (code_point >= 0xd800 && code_point < 0xe000)) code_point = 0xfffd;
  const auto put = [out](std::uint32_t byte) { out->push_back(static_cast<char>(byte)); };
  const std::uint32_t c = code_point;
  if (c < 0x80) {
    put(c);
  } else if (c < 0x800) {
    put(0xc0 | (c >> 6));
    put(0x80 | (c & 0x3f));
  } else if (c < 0x10000) {
    put(0xe0 | (c >> 12));
    put(0x80 | ((c >> 6) & 0x3f));
    put(0x80 | (c & 0x3f));
  } else {
    put(0xf0 | (c >> 18));
    put(0x80 | ((c >> 12) & 0x3f));
    put(0x80 | ((c >> 6) & 0x3f));
    put(0x80 | (c & 0x3f));
  }
}

std::string to_utf8(std::u32string_view text) {
  std::string out;
  out.reserve(text.size());
  for (const char32_t c : text) append_utf8(c, &out);
  return out;
}

std::size_t count_code_points(std::string_view text) {
  std::size_t count = 0;
  for (const char c : text) count += (static_cast<unsigned char>(c) & 0xc0) != 0x80;
  return count;
}

bool is_space(char32_t c) {
  return (c >= 0x09 && c <= 0x0d) || (c >= 0x1c && c <= 0x20) || c == 0x85 || c == 0xa0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

std::string_view strip_left(std::string_view text, const std::optional<std::string>& characters) {
  const std::u32string set = characters ? to_code_points(*characters) : std::u32string();
  std::size_t i = 0;
  while (i < text.size()) {
    std::size_t next = i;
    const char32_t point = next_code_point(text, &next);
    if (characters ? set.find(point) == std::u32string::npos : !is_space(point)) break;
    i = next;
  }
  return text.substr(i);
}

std::string_view strip_right(std::string_view text, const std::optional<std::string>& characters) {
  const std::u32string set = characters ? to_code_points(*characters) : std::u32string();
  std::size_t end = text.size();
  while (end > 0) {
    std::size_t before = end - 1;
    while (before > 0 && (static_cast<unsigned char>(text[before]) & 0xc0) == 0x80) --before;
    std::size_t at = before;
    const char32_t point = next_code_point(text, &at);
    if (characters ? set.find(point) == std::u32string::npos : !is_space(point)) break;
    end = before;
  }
  return text.substr(0, end);
}

std::string to_upper(std::string_view text) {
  return from_icu(to_icu(text).toUpper(icu::Locale::getRoot()));
}
std::string to_lower(std::string_view text) {
  return from_icu(to_icu(text).toLower(icu::Locale::getRoot()));
}

std::string capitalize(std::string_view text) {
  if (text.empty()) return {};
  std::size_t i = 0;
  const char32_t first = next_code_point(text, &i);
  return title_of(first) + to_lower(text.substr(i));
}

std::string title_case(std::string_view text) {
  std::string out;
  std::string word;  // the rest of a word, lowered as a whole so that a final sigma comes out right
  bool after_cased = false;
  const auto flush = [&] {
    out += to_lower(word);
    word.clear();
  };
  for (const char32_t c : to_code_points(text)) {
    if (after_cased) {
      append_utf8(c, &word);
    } else {
      flush();
      out += title_of(c);
    }
    after_cased = is_cased(c);
  }
  flush();
  return out;
}

std::string swap_case(std::string_view text) {
  std::string out;
  for (const char32_t c : to_code_points(text)) {
    std::string one;
    append_utf8(c, &one);
    out += u_hasBinaryProperty(as_icu(c), UCHAR_UPPERCASE) ? to_lower(one) : to_upper(one);
  }
  return out;
}

std::vector<std::string> split_lines(std::string_view text, bool keep_ends) {
  std::vector<std::string> lines;
  const std::u32string points = to_code_points(text);
  std::string line;
  for (std::size_t i = 0; i < points.size(); ++i) {
    if (!is_line_end(points[i])) {
      append_utf8(points[i], &line);
      continue;
    }
    if (keep_ends) append_utf8(points[i], &line);
    if (points[i] == U'\r' && i + 1 < points.size() && points[i + 1] == U'\n') {
      ++i;
      if (keep_ends) line.push_back('\n');
    }
    lines.push_back(std::move(line));
    line.clear();
  }
  if (!line.empty()) lines.push_back(std::move(line));
  return lines;
}

std::string replace_all(std::string_view text, std::string_view from, std::string_view to, std::int64_t count) {
  std::string out;
  std::size_t at = 0;
  if (from.empty()) {  // Python puts `to` before every character and at the end
    const std::u32string points = to_code_points(text);
    for (const char32_t c : points) {
      if (count != 0) out += to;
      if (count > 0) --count;
      append_utf8(c, &out);
    }
    if (count != 0) out += to;
    return out;
  }
  while (count != 0) {
    const std::size_t found = text.find(from, at);
    if (found == std::string_view::npos) break;
    out += text.substr(at, found - at);
    out += to;
    at = found + from.size();
    if (count > 0) --count;
  }
  out += text.substr(at);
  return out;
}

bool is_class(std::string_view text, std::string_view name) {
  const std::u32string points = to_code_points(text);
  const auto all = [&](auto predicate) {
    for (const char32_t c : points) {
      if (!predicate(c)) return false;
    }
    return true;
  };
  if (name == "ascii") return all([](char32_t c) { return c < 0x80; });
  if (points.empty()) return name == "printable";
  if (name == "printable") return all(is_printable);
  if (name == "space") return all(is_space);
  if (name == "alpha") return all(is_letter);
  if (name == "decimal") return all([](char32_t c) { return has_numeric_type(c, U_NT_DECIMAL); });
  if (name == "digit") return all([](char32_t c) { return has_numeric_type(c, U_NT_DIGIT); });
  if (name == "numeric") return all([](char32_t c) { return has_numeric_type(c, U_NT_NUMERIC); });
  if (name == "alnum") return all([](char32_t c) { return is_letter(c) || has_numeric_type(c, U_NT_NUMERIC); });
  if (name == "upper") return all_cased(points, UCHAR_UPPERCASE);
  if (name == "lower") return all_cased(points, UCHAR_LOWERCASE);
  if (name == "title") return is_title(points);
  const bool starts = u_hasBinaryProperty(as_icu(points[0]), UCHAR_XID_START) || points[0] == U'_';
  return starts && all([](char32_t c) { return u_hasBinaryProperty(as_icu(c), UCHAR_XID_CONTINUE) != 0; });
}

std::string quote(std::string_view text) {
  const bool has_single = text.find('\'') != std::string_view::npos;
  const char mark = has_single && text.find('"') == std::string_view::npos ? '"' : '\'';
  std::string out(1, mark);
  for (const char32_t c : to_code_points(text)) {
    if (c == static_cast<char32_t>(mark) || c == U'\\') {
      out.push_back('\\');
      append_utf8(c, &out);
    } else if (c == U'\n') {
      out += "\\n";
    } else if (c == U'\r') {
      out += "\\r";
    } else if (c == U'\t') {
      out += "\\t";
    } else if (is_printable(c)) {
      append_utf8(c, &out);
    } else {
      const auto number = static_cast<std::uint32_t>(c);
      out += number < 0x100     ? fmt::format("\\x{:02x}", number)
             : number < 0x10000 ? fmt::format("\\u{:04x}", number)
                                : fmt::format("\\U{:08x}", number);
    }
  }
  out.push_back(mark);
  return out;
}

std::string escape_html(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&#34;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        out.push_back(c);
    }
  }
  return out;
}

std::string float_repr(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  std::array<char, 64> buffer;
  const auto result = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value, std::chars_format::scientific);
  const std::string_view text(buffer.data(), static_cast<std::size_t>(result.ptr - buffer.data()));
  const std::size_t e = text.find('e');
  int exponent = 0;
  const char* first = text.data() + e + 1;
  std::from_chars(*first == '+' ? first + 1 : first, result.ptr, exponent);
  const bool negative = text[0] == '-';
  std::string digits;
  for (const char c : text.substr(0, e)) {
    if (c >= '0' && c <= '9') digits.push_back(c);
  }
  std::string out = negative ? "-" : "";
  if (exponent < -4 || exponent >= 16) {
    out += digits[0];
    if (digits.size() > 1) out += "." + digits.substr(1);
    return out + fmt::format("e{}{:02}", exponent < 0 ? '-' : '+', std::abs(exponent));
  }
  if (exponent < 0) return out + "0." + std::string(static_cast<std::size_t>(-exponent - 1), '0') + digits;
  const auto whole = static_cast<std::size_t>(exponent) + 1;
  if (digits.size() <= whole) return out + digits + std::string(whole - digits.size(), '0') + ".0";
  return out + digits.substr(0, whole) + "." + digits.substr(whole);
}

}  // namespace chorus::jinja

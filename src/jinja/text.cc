#include "jinja/text.h"

#include <fmt/format.h>
#include <unicode/bytestream.h>
#include <unicode/casemap.h>
#include <unicode/locid.h>
#include <unicode/uchar.h>
#include <unicode/unistr.h>
#include <unicode/utf8.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <exception>

namespace chorus::jinja {
namespace {

UChar32 as_icu(char32_t code_point) {
  return static_cast<UChar32>(code_point);
}

// ICU writes to a String without a copy between. ICU is not made to be left by an exception, so one waits for finish().
class StringSink : public icu::ByteSink {
 public:
  explicit StringSink(String* out) : out_(out) {}
  void Append(const char* bytes, std::int32_t size) override {
    if (error_ != nullptr) return;
    try {
      out_->append(bytes, static_cast<std::size_t>(size));
    } catch (...) {
      error_ = std::current_exception();
    }
  }
  void finish() const {
    if (error_ != nullptr) std::rethrow_exception(error_);
  }

 private:
  String* out_;
  std::exception_ptr error_;
};

icu::StringPiece piece(std::string_view text) {
  return {text.data(), static_cast<std::int32_t>(text.size())};
}

bool is_ascii(std::string_view text) {
  return std::ranges::all_of(text, [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}

bool is_cased(char32_t code_point) {
  return u_hasBinaryProperty(as_icu(code_point), UCHAR_LOWERCASE) ||
         u_hasBinaryProperty(as_icu(code_point), UCHAR_UPPERCASE) || u_istitle(as_icu(code_point));
}

// Full mapping of one character: ICU's string function with no break iterator titles the first character.
void append_title_of(char32_t code_point, String* out) {
  icu::UnicodeString one(as_icu(code_point));
  StringSink sink(out);
  one.toTitle(nullptr, icu::Locale::getRoot()).toUTF8(sink);
  sink.finish();
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

bool all_characters(std::string_view text, bool (*holds)(char32_t)) {
  for (std::size_t i = 0; i < text.size();) {
    if (!holds(next_code_point(text, &i))) return false;
  }
  return true;
}

// upper and lower: every cased character is of the case, and there is one.
bool all_cased(std::string_view text, UProperty property) {
  bool any = false;
  for (std::size_t i = 0; i < text.size();) {
    const char32_t c = next_code_point(text, &i);
    if (!is_cased(c)) continue;
    if (!u_hasBinaryProperty(as_icu(c), property)) return false;
    any = true;
  }
  return any;
}

bool is_title(std::string_view text) {
  bool any = false;
  bool after_cased = false;
  for (std::size_t i = 0; i < text.size();) {
    const char32_t c = next_code_point(text, &i);
    const bool upper = u_hasBinaryProperty(as_icu(c), UCHAR_UPPERCASE) || u_istitle(as_icu(c));
    if (is_cased(c) && upper == after_cased) return false;
    after_cased = is_cased(c);
    any = any || after_cased;
  }
  return any;
}

// Knuth, Morris and Pratt: where `wanted` ends in the text, counted in the direction in which both are read; npos if it
// is not there.
template <typename Text, typename Wanted>
std::size_t end_of_match(std::size_t text_size, Text text, std::size_t wanted_size, Wanted wanted, Budget& budget) {
  if (wanted_size > text_size) return std::string_view::npos;
  budget.search_bytes(wanted_size);
  Vector<std::uint32_t> border(wanted_size, 0, budget);  // of each beginning of `wanted`
  for (std::size_t i = 1, k = 0; i < wanted_size; ++i) {
    while (k > 0 && wanted(i) != wanted(k)) k = border[k - 1];
    if (wanted(i) == wanted(k)) ++k;
    border[i] = static_cast<std::uint32_t>(k);
  }
  for (std::size_t i = 0, k = 0; i < text_size; ++i) {
    while (k > 0 && text(i) != wanted(k)) k = border[k - 1];
    if (text(i) == wanted(k)) ++k;
    if (k == wanted_size) return i + 1;
  }
  return std::string_view::npos;
}

// Up to this length comparing at each place costs no more than a table.
constexpr std::size_t short_search_bytes_max = 32;

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

std::size_t count_code_points(std::string_view text) {
  std::size_t count = 0;
  for (const char c : text) count += (static_cast<unsigned char>(c) & 0xc0) != 0x80;
  return count;
}

bool is_space(char32_t c) {
  return (c >= 0x09 && c <= 0x0d) || (c >= 0x1c && c <= 0x20) || c == 0x85 || c == 0xa0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

std::size_t after_character(std::string_view text, std::size_t at) {
  do {
    ++at;
  } while (at < text.size() && (static_cast<unsigned char>(text[at]) & 0xc0) == 0x80);
  return at;
}

std::size_t before_character(std::string_view text, std::size_t at) {
  do {
    --at;
  } while (at > 0 && (static_cast<unsigned char>(text[at]) & 0xc0) == 0x80);
  return at;
}

std::size_t byte_of_character(std::string_view text, bool ascii, std::int64_t index) {
  if (ascii) return std::min(static_cast<std::size_t>(index), text.size());
  std::size_t at = 0;
  for (; index > 0 && at < text.size(); --index) at = after_character(text, at);
  return at;
}

namespace {

template <typename Holds>
std::string_view strip_left_while(std::string_view text, Holds holds) {
  std::size_t i = 0;
  while (i < text.size()) {
    std::size_t next = i;
    if (!holds(next_code_point(text, &next))) break;
    i = next;
  }
  return text.substr(i);
}

template <typename Holds>
std::string_view strip_right_while(std::string_view text, Holds holds) {
  std::size_t end = text.size();
  while (end > 0) {
    const std::size_t before = before_character(text, end);
    std::size_t at = before;
    if (!holds(next_code_point(text, &at))) break;
    end = before;
  }
  return text.substr(0, end);
}

}  // namespace

std::string_view strip_left(std::string_view text) {
  return strip_left_while(text, is_space);
}
std::string_view strip_right(std::string_view text) {
  return strip_right_while(text, is_space);
}

CharacterSet::CharacterSet(std::string_view characters, Budget& budget) : others_(budget) {
  budget.read_characters(characters.size() * 4);  // sorting takes most of it
  each_code_point(characters, [&](char32_t c) {
    if (c < 0x80) {
      ascii_[c] = true;
    } else {
      others_.push_back(c);
    }
  });
  std::ranges::sort(others_);
}

bool CharacterSet::has(char32_t code_point) const {
  return code_point < 0x80 ? ascii_[code_point] : std::ranges::binary_search(others_, code_point);
}
std::string_view CharacterSet::strip_left(std::string_view text) const {
  return strip_left_while(text, [this](char32_t c) { return has(c); });
}
std::string_view CharacterSet::strip_right(std::string_view text) const {
  return strip_right_while(text, [this](char32_t c) { return has(c); });
}

std::size_t find(std::string_view text, std::string_view wanted, Budget& budget) {
  std::size_t at = 0;
  if (wanted.size() <= short_search_bytes_max) {
    at = text.find(wanted);
  } else {
    const std::size_t end = end_of_match(
        text.size(), [&](std::size_t i) { return text[i]; }, wanted.size(), [&](std::size_t i) { return wanted[i]; },
        budget);
    at = end == std::string_view::npos ? end : end - wanted.size();
  }
  budget.search_bytes(std::min(at, text.size()));
  return at;
}

std::size_t find_last(std::string_view text, std::string_view wanted, Budget& budget) {
  std::size_t at = 0;
  if (wanted.size() <= short_search_bytes_max) {
    at = text.rfind(wanted);
  } else {
    const std::size_t end = end_of_match(
        text.size(), [&](std::size_t i) { return text[text.size() - 1 - i]; }, wanted.size(),
        [&](std::size_t i) { return wanted[wanted.size() - 1 - i]; }, budget);
    at = end == std::string_view::npos ? end : text.size() - end;
  }
  budget.search_bytes(text.size() - (at == std::string_view::npos ? 0 : at));
  return at;
}

void append_upper(std::string_view text, String* out) {
  if (is_ascii(text)) {
    out->reserve(out->size() + text.size());
    for (const char c : text) out->push_back(c >= 'a' && c <= 'z' ? static_cast<char>(c - 0x20) : c);
    return;
  }
  StringSink sink(out);
  UErrorCode code = U_ZERO_ERROR;
  icu::CaseMap::utf8ToUpper("", 0, piece(text), sink, nullptr, code);
  sink.finish();
}

void append_lower(std::string_view text, String* out) {
  if (is_ascii(text)) {
    out->reserve(out->size() + text.size());
    for (const char c : text) out->push_back(c >= 'A' && c <= 'Z' ? static_cast<char>(c + 0x20) : c);
    return;
  }
  StringSink sink(out);
  UErrorCode code = U_ZERO_ERROR;
  icu::CaseMap::utf8ToLower("", 0, piece(text), sink, nullptr, code);
  sink.finish();
}

void append_capitalized(std::string_view text, String* out) {
  if (text.empty()) return;
  std::size_t i = 0;
  const char32_t first = next_code_point(text, &i);
  append_title_of(first, out);
  append_lower(text.substr(i), out);
}

void append_title(std::string_view text, String* out) {
  std::size_t word = 0;  // where the rest of a word begins: lowered as a whole so that a final sigma comes out right
  bool after_cased = false;
  for (std::size_t i = 0; i < text.size();) {
    const std::size_t begin = i;
    const char32_t c = next_code_point(text, &i);
    if (!after_cased) {
      append_lower(text.substr(word, begin - word), out);
      append_title_of(c, out);
      word = i;
    }
    after_cased = is_cased(c);
  }
  append_lower(text.substr(word), out);
}

void append_swapped_case(std::string_view text, String* out) {
  for (std::size_t i = 0; i < text.size();) {
    const std::size_t begin = i;
    const char32_t c = next_code_point(text, &i);
    const std::string_view one = text.substr(begin, i - begin);
    if (u_hasBinaryProperty(as_icu(c), UCHAR_UPPERCASE)) {
      append_lower(one, out);
    } else {
      append_upper(one, out);
    }
  }
}

void each_line(std::string_view text, bool keep_ends, const std::function<void(std::string_view)>& take) {
  std::size_t begin = 0;
  for (std::size_t i = 0; i < text.size();) {
    const std::size_t end = i;
    const char32_t c = next_code_point(text, &i);
    if (!is_line_end(c)) continue;
    if (c == U'\r' && i < text.size() && text[i] == '\n') ++i;
    take(text.substr(begin, (keep_ends ? i : end) - begin));
    begin = i;
  }
  if (begin < text.size()) take(text.substr(begin));
}

bool ends_line(std::string_view text) {
  if (text.empty()) return false;
  std::size_t last = before_character(text, text.size());
  return is_line_end(next_code_point(text, &last));
}

void append_replaced(std::string_view text, std::string_view from, std::string_view to, std::int64_t count, String* out,
                     Budget& budget) {
  std::size_t at = 0;
  if (from.empty()) {  // Python puts `to` before every character and at the end
    for (; count != 0 && at<text.size(); count -= count> 0) {
      budget.step();
      const std::size_t next = after_character(text, at);
      out->append(to).append(text.substr(at, next - at));
      at = next;
    }
    if (count != 0) out->append(to);
  }
  while (count != 0 && !from.empty()) {
    budget.step();
    const std::size_t found = find(text.substr(at), from, budget);
    if (found == std::string_view::npos) break;
    out->append(text.substr(at, found)).append(to);
    at += found + from.size();
    if (count > 0) --count;
  }
  out->append(text.substr(at));
}

void append_repeated(std::string_view text, std::uint64_t count, String* out) {
  std::uint64_t bytes = 0;
  if (__builtin_mul_overflow(text.size(), count, &bytes) || __builtin_add_overflow(bytes, out->size(), &bytes) ||
      bytes > UINT64_MAX / 4) {
    raise_limit("a text of {} times {} bytes is more than a template may make", count, text.size());
  }
  out->reserve(bytes);
  if (text.size() == 1) {
    out->append(count, text[0]);
    return;
  }
  for (std::uint64_t i = 0; i < count && !text.empty(); ++i) out->append(text);
}

bool is_alphanumeric(char32_t c) {
  return is_letter(c) || has_numeric_type(c, U_NT_NUMERIC);
}

bool is_class(std::string_view text, std::string_view name) {
  if (name == "ascii") return is_ascii(text);
  if (text.empty()) return name == "printable";
  if (name == "printable") return all_characters(text, is_printable);
  if (name == "space") return all_characters(text, is_space);
  if (name == "alpha") return all_characters(text, is_letter);
  if (name == "decimal") return all_characters(text, [](char32_t c) { return has_numeric_type(c, U_NT_DECIMAL); });
  if (name == "digit") return all_characters(text, [](char32_t c) { return has_numeric_type(c, U_NT_DIGIT); });
  if (name == "numeric") return all_characters(text, [](char32_t c) { return has_numeric_type(c, U_NT_NUMERIC); });
  if (name == "alnum") return all_characters(text, is_alphanumeric);
  if (name == "upper") return all_cased(text, UCHAR_UPPERCASE);
  if (name == "lower") return all_cased(text, UCHAR_LOWERCASE);
  if (name == "title") return is_title(text);
  std::size_t second = 0;
  const char32_t first = next_code_point(text, &second);
  const bool starts = u_hasBinaryProperty(as_icu(first), UCHAR_XID_START) || first == U'_';
  return starts && all_characters(text.substr(second),
                                  [](char32_t c) { return u_hasBinaryProperty(as_icu(c), UCHAR_XID_CONTINUE) != 0; });
}

namespace {

template <typename Out>
void quote(std::string_view text, Out* out) {
  const bool has_single = text.find('\'') != std::string_view::npos;
  const char mark = has_single && text.find('"') == std::string_view::npos ? '"' : '\'';
  out->push_back(mark);
  each_code_point(text, [&](char32_t c) {
    if (c == static_cast<char32_t>(mark) || c == U'\\') {
      out->push_back('\\');
      append_utf8(c, out);
    } else if (c == U'\n') {
      out->append("\\n");
    } else if (c == U'\r') {
      out->append("\\r");
    } else if (c == U'\t') {
      out->append("\\t");
    } else if (is_printable(c)) {
      append_utf8(c, out);
    } else {
      const auto number = static_cast<std::uint32_t>(c);
      out->append(std::string_view(number < 0x100     ? fmt::format("\\x{:02x}", number)
                                   : number < 0x10000 ? fmt::format("\\u{:04x}", number)
                                                      : fmt::format("\\U{:08x}", number)));
    }
  });
  out->push_back(mark);
}

}  // namespace

void append_quoted(std::string_view text, String* out) {
  quote(text, out);
}

std::string shown(std::string_view text) {
  constexpr std::size_t bytes_max = 200;
  std::string out;
  if (text.size() <= bytes_max) {
    quote(text, &out);
  } else {
    std::size_t end = bytes_max;
    while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80) --end;
    quote(text.substr(0, end), &out);
    out += "...";
  }
  return out;
}

void append_escaped(std::string_view text, String* out) {
  for (const char c : text) {
    switch (c) {
      case '&':
        out->append("&amp;");
        break;
      case '<':
        out->append("&lt;");
        break;
      case '>':
        out->append("&gt;");
        break;
      case '"':
        out->append("&#34;");
        break;
      case '\'':
        out->append("&#39;");
        break;
      default:
        out->push_back(c);
    }
  }
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

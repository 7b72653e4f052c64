#include "json/python_json.h"

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <unordered_map>

#include "json/file.h"
#include "json/utf8.h"

namespace chorus {
namespace {

constexpr int levels_max = 1000;

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

class Parser {
 public:
  explicit Parser(std::string_view text, int depth_max) : text_(text), levels_(depth_max), depth_max_(depth_max) {}

  Result<Json> parse_document() {
    CHORUS_TRY(Json value, parse_value());
    skip_space();
    if (at_ != text_.size()) return wrong("something after the value");
    return value;
  }

 private:
  Error wrong(std::string_view what) const {
    const auto lines = std::count(text_.begin(), text_.begin() + static_cast<std::ptrdiff_t>(at_), '\n');
    return fail(ErrorCode::invalid_argument, "invalid JSON at line {}, byte {}: {}", lines + 1, at_, what);
  }

  char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }

  void skip_space() {
    while (at_ < text_.size() && std::string_view(" \t\n\r").find(text_[at_]) != std::string_view::npos) ++at_;
  }

  bool take(std::string_view word) {
    if (!text_.substr(at_).starts_with(word)) return false;
    at_ += word.size();
    return true;
  }

  Result<Json> parse_value() {
    skip_space();
    switch (peek()) {
      case '{':
        return parse_container(&Parser::parse_object);
      case '[':
        return parse_container(&Parser::parse_array);
      case '"': {
        CHORUS_TRY(std::string text, parse_string());
        return Json(std::move(text));
      }
      default:
        return parse_plain();
    }
  }

  Result<Json> parse_plain() {
    constexpr double infinity = std::numeric_limits<double>::infinity();
    if (take("true")) return Json(true);
    if (take("false")) return Json(false);
    if (take("null")) return Json(nullptr);
    if (take("NaN")) return Json(std::numeric_limits<double>::quiet_NaN());
    if (take("Infinity")) return Json(infinity);
    if (take("-Infinity")) return Json(-infinity);
    return parse_number();
  }

  Result<Json> parse_container(Result<Json> (Parser::*parse)()) {
    if (levels_ == 0) {
      return fail(ErrorCode::invalid_argument, "JSON is nested deeper than the limit of {} levels", depth_max_);
    }
    --levels_;
    ++at_;
    auto value = (this->*parse)();
    ++levels_;
    return value;
  }

  // After the opening bracket. A key that comes again replaces the value and keeps its place, as in a dict.
  Result<Json> parse_object() {
    Json object = Json::object();
    auto& fields = object.get_ref<Json::object_t&>();
    std::unordered_map<std::string, std::size_t> places;
    for (skip_space(); peek() != '}'; skip_space()) {
      if (!places.empty()) {
        if (!take(",")) return wrong("',' or '}' expected");
        skip_space();
      }
      if (peek() != '"') return wrong("a key in double quotes expected");
      CHORUS_TRY(std::string key, parse_string());
      skip_space();
      if (!take(":")) return wrong("':' expected");
      CHORUS_TRY(Json value, parse_value());
      const auto [place, is_new] = places.emplace(key, fields.size());
      if (is_new) {
        fields.emplace_back(std::move(key), std::move(value));
      } else {
        (fields.begin() + static_cast<std::ptrdiff_t>(place->second))->second = std::move(value);
      }
    }
    ++at_;
    return object;
  }

  Result<Json> parse_array() {
    Json array = Json::array();
    for (skip_space(); peek() != ']'; skip_space()) {
      if (!array.empty() && !take(",")) return wrong("',' or ']' expected");
      CHORUS_TRY(Json value, parse_value());
      array.push_back(std::move(value));
    }
    ++at_;
    return array;
  }

  // An integer that 64 bits do not hold becomes the nearest double, a number that no double holds an infinity.
  Result<Json> parse_number() {
    std::size_t end = at_;
    const auto digits = [&] {
      const std::size_t begin = end;
      while (end < text_.size() && is_digit(text_[end])) ++end;
      return end > begin;
    };
    if (peek() == '-') ++end;
    const bool leading_zero = end < text_.size() && text_[end] == '0';
    const std::size_t first = end;
    if (!digits() || (leading_zero && end > first + 1)) return wrong("a value expected");
    bool whole = true;
    if (end < text_.size() && text_[end] == '.') {
      whole = false;
      ++end;
      if (!digits()) return wrong("a digit expected after the point");
    }
    if (end < text_.size() && (text_[end] == 'e' || text_[end] == 'E')) {
      whole = false;
      ++end;
      if (end < text_.size() && (text_[end] == '+' || text_[end] == '-')) ++end;
      if (!digits()) return wrong("a digit expected in the exponent");
    }
    const std::string number(text_.substr(at_, end - at_));
    at_ = end;
    return value_of(number, whole);
  }

  static Json value_of(const std::string& number, bool whole) {
    const char* const end = number.data() + number.size();
    std::int64_t negative_too = 0;
    std::uint64_t positive = 0;
    if (whole && std::from_chars(number.data(), end, negative_too).ec == std::errc()) return Json(negative_too);
    if (whole && number[0] != '-' && std::from_chars(number.data(), end, positive).ec == std::errc())
      return Json(positive);
    return Json(std::strtod(number.c_str(), nullptr));  // rounds to nearest; beyond double: infinity or 0
  }

  // At the opening quote. A lone surrogate, which no UTF-8 holds, becomes U+FFFD.
  Result<std::string> parse_string() {
    std::string out;
    ++at_;
    for (;;) {
      if (at_ == text_.size()) return wrong("a string does not end");
      const char c = text_[at_];
      if (static_cast<unsigned char>(c) < 0x20) return wrong("a control character in a string");
      ++at_;
      if (c == '"') return out;
      if (c != '\\') {
        out.push_back(c);
        continue;
      }
      CHORUS_TRY_VOID(parse_escape(&out));
    }
  }

  Result<void> parse_escape(std::string* out) {
    constexpr std::string_view escapes = "\"\\/bfnrt", meanings = "\"\\/\b\f\n\r\t";
    const char c = peek();
    ++at_;
    if (const std::size_t which = escapes.find(c); c != '\0' && which != std::string_view::npos) {
      out->push_back(meanings[which]);
      return {};
    }
    if (c != 'u') return wrong("an unknown escape in a string");
    CHORUS_TRY(char32_t code, parse_hex());
    const bool is_high = code >= 0xd800 && code < 0xdc00;
    if (is_high && text_.substr(at_).starts_with("\\u")) {
      const std::size_t before = at_;
      at_ += 2;
      CHORUS_TRY(const char32_t low, parse_hex());
      if (low >= 0xdc00 && low < 0xe000) {
        code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
      } else {
        at_ = before;
      }
    }
    append_utf8(*out, code >= 0xd800 && code < 0xe000 ? replacement_character : code);
    return {};
  }

  Result<char32_t> parse_hex() {
    std::uint32_t code = 0;
    const std::string_view digits = text_.substr(at_, 4);
    const auto parsed = std::from_chars(digits.data(), digits.data() + digits.size(), code, 16);
    if (digits.size() != 4 || parsed.ec != std::errc() || parsed.ptr != digits.data() + 4)
      return wrong("four hexadecimal digits expected");
    at_ += 4;
    return static_cast<char32_t>(code);
  }

  std::string_view text_;
  std::size_t at_ = 0;
  int levels_, depth_max_;
};

}  // namespace

// Most texts are everybody's JSON: only what the fast parser refuses is read by the one above.
Result<Json> parse_python_json(std::string_view text, std::size_t bytes_max) {
  auto json = parse_json(text, JsonLimits{.bytes_max = bytes_max, .depth_max = levels_max});
  if (json || text.size() > bytes_max) return json;
  if (const auto byte = find_invalid_utf8(text)) {
    return fail(ErrorCode::invalid_argument, "invalid JSON: not UTF-8 at byte {}", *byte);
  }
  return Parser(text, levels_max).parse_document();
}

Result<Json> read_python_json_file(const std::string& path, std::size_t bytes_max) {
  CHORUS_TRY(const std::string text, read_file(path, bytes_max));
  auto json = parse_python_json(text, bytes_max);
  if (!json) return with_context(json.error(), path);
  return json;
}

}  // namespace chorus

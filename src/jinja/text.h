// Python's str operations on UTF-8: positions are code points, classes and case mappings are Unicode's (ICU).
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "jinja/budget.h"

namespace chorus::jinja {

bool is_utf8(std::string_view text);
// The code point at *at, which moves behind it; bytes that are not UTF-8 give U+FFFD.
char32_t next_code_point(std::string_view text, std::size_t* at);
std::size_t count_code_points(std::string_view text);

// A surrogate becomes U+FFFD. Out: String or std::string.
template <typename Out>
void append_utf8(char32_t code_point, Out* out) {
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

template <typename Take>
void each_code_point(std::string_view text, Take take) {
  for (std::size_t i = 0; i < text.size();) take(next_code_point(text, &i));
}

// Where the character behind that at `at` begins, and where the one before `at` begins.
std::size_t after_character(std::string_view text, std::size_t at);
std::size_t before_character(std::string_view text, std::size_t at);
// The byte at which the character with this index begins; the end of the text for one behind it.
std::size_t byte_of_character(std::string_view text, bool ascii, std::int64_t index);

bool is_space(char32_t code_point);  // str.isspace, and \s of the template's syntax
std::string_view strip_left(std::string_view text);
std::string_view strip_right(std::string_view text);

// A set of characters given as a text, for str.strip.
class CharacterSet {
 public:
  CharacterSet(std::string_view characters, Budget& budget);
  std::string_view strip_left(std::string_view text) const;
  std::string_view strip_right(std::string_view text) const;

 private:
  bool has(char32_t code_point) const;
  bool ascii_[128] = {};
  Vector<char32_t> others_;  // sorted
};

// Position of the first or last place of `wanted`, npos if there is none. In linear time whatever the two are.
std::size_t find(std::string_view text, std::string_view wanted, Budget& budget);
std::size_t find_last(std::string_view text, std::string_view wanted, Budget& budget);

// These append to *out.
void append_upper(std::string_view text, String* out);
void append_lower(std::string_view text, String* out);
void append_capitalized(std::string_view text, String* out);
void append_title(std::string_view text, String* out);  // str.title
void append_swapped_case(std::string_view text, String* out);
void append_replaced(std::string_view text, std::string_view from, std::string_view to, std::int64_t count, String* out,
                     Budget& budget);
void append_escaped(std::string_view text, String* out);  // for HTML
void append_repeated(std::string_view text, std::uint64_t count, String* out);
void append_quoted(std::string_view text, String* out);  // repr()

// str.splitlines: each line, with its end where `keep_ends`.
void each_line(std::string_view text, bool keep_ends, const std::function<void(std::string_view)>& take);

bool ends_line(std::string_view text);  // whether its last character is a line's end

// str.isalpha and so on, by name without "is": alpha digit alnum space upper lower numeric decimal title ascii
// identifier.
bool is_class(std::string_view text, std::string_view name);
bool is_alphanumeric(char32_t code_point);

// repr() for an error's message: of a long text the beginning.
std::string shown(std::string_view text);
std::string float_repr(double value);  // repr(float): shortest digits, exponent from 1e16 on

}  // namespace chorus::jinja

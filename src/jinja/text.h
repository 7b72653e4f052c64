// Python's str operations on UTF-8: positions are code points, classes and case mappings are Unicode's (ICU).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace chorus::jinja {

bool is_utf8(std::string_view text);
// The code point at *at, which moves behind it; bytes that are not UTF-8 give U+FFFD.
char32_t next_code_point(std::string_view text, std::size_t* at);
std::u32string to_code_points(std::string_view text);
void append_utf8(char32_t code_point, std::string* out);  // a surrogate becomes U+FFFD
std::string to_utf8(std::u32string_view text);
std::size_t count_code_points(std::string_view text);

bool is_space(char32_t code_point);  // str.isspace, and \s of the template's syntax
// str.strip family; without `characters` white space is stripped.
std::string_view strip_left(std::string_view text, const std::optional<std::string>& characters = std::nullopt);
std::string_view strip_right(std::string_view text, const std::optional<std::string>& characters = std::nullopt);

std::string to_upper(std::string_view text);
std::string to_lower(std::string_view text);
std::string capitalize(std::string_view text);
std::string title_case(std::string_view text);  // str.title
std::string swap_case(std::string_view text);
std::vector<std::string> split_lines(std::string_view text, bool keep_ends);
std::string replace_all(std::string_view text, std::string_view from, std::string_view to, std::int64_t count);

// str.isalpha and so on, by name without "is": alpha digit alnum space upper lower numeric decimal title ascii
// identifier.
bool is_class(std::string_view text, std::string_view name);

std::string quote(std::string_view text);  // repr()
std::string escape_html(std::string_view text);
std::string float_repr(double value);  // repr(float): shortest digits, exponent from 1e16 on

}  // namespace chorus::jinja

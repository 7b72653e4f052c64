// Values that are written in a text, whatever the locale: of options and of rows of files. Pure.
#pragma once

#include <algorithm>
#include <charconv>
#include <concepts>
#include <optional>
#include <string_view>
#include <vector>

namespace chorus {

// The number that the whole text is, as std::from_chars() reads it; none if it is something else, or beyond T. "inf" is
// a real number, "nan" is none.
template <typename T>
std::optional<T> number_in(std::string_view text) {
  T value = 0;
  const char* const end = text.data() + text.size();
  const std::from_chars_result read = std::from_chars(text.data(), end, value);
  if (read.ec != std::errc() || read.ptr != end) return std::nullopt;
  if constexpr (std::floating_point<T>) {
    if (value != value) return std::nullopt;
  }
  return value;
}

// Takes the part before the first `separator`, and that one, from the front of `text`; without one the whole text.
inline std::string_view next_part(std::string_view* text, char separator) {
  const std::size_t end = std::min(text->find(separator), text->size());
  const std::string_view part = text->substr(0, end);
  text->remove_prefix(std::min(end + 1, text->size()));
  return part;
}

// All parts, one more than there are separators: "a,,b" has three, "" has one. Views into `text`.
inline std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find(separator, begin), text.size());
    parts.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

}  // namespace chorus

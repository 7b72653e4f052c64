// Text by the rules of ASCII alone, whatever the locale: the names of protocols and options.
#pragma once

#include <algorithm>
#include <string>

namespace chorus {

// A to Z become a to z; every other byte stays.
inline std::string ascii_lower(std::string text) {
  std::ranges::transform(text, text.begin(),
                         [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
  return text;
}

// No space, no control character, nothing beyond ASCII.
constexpr bool is_visible_ascii(char c) {
  return c > ' ' && c < 0x7f;
}

}  // namespace chorus

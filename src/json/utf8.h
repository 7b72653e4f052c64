// UTF-8, a character at a time: what is well formed (Unicode 15, table 3-7) and how much of an ill-formed sequence
// counts as one error ("maximal subpart", Unicode section 3.9, which is what Rust, Python and browsers replace by one
// U+FFFD).
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace chorus {

// What stands in a text for what is no character.
inline constexpr char32_t replacement_character = 0xFFFD;
inline constexpr std::string_view replacement_text = "\xEF\xBF\xBD";

struct Utf8Step {
  char32_t code_point = 0;  // replacement_character when not valid
  std::uint8_t size = 0;    // bytes to go on by: 1 to 4
  bool valid = false;
  bool cut_off = false;  // not valid only because the text ends: more bytes might complete it
};

// The character at `at` < text.size().
Utf8Step utf8_step(std::string_view text, std::size_t at);

// Where the first ill-formed sequence begins; nullopt when the whole text is UTF-8.
std::optional<std::size_t> find_invalid_utf8(std::string_view text);

// Appends a code point that is no surrogate and at most U+10FFFF.
void append_utf8(std::string& out, char32_t code_point);

}  // namespace chorus

// Character classes and byte-level characters, as the tokenizers' regular expressions and rules see them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace chorus {

// A character of text that is known to be UTF-8.
struct Character {
  char32_t code_point;
  std::uint32_t size;  // bytes
};

inline Character character_at(std::string_view text, std::size_t at) {
  const auto byte = [&](std::size_t n) { return static_cast<char32_t>(static_cast<unsigned char>(text[at + n])); };
  const char32_t first = byte(0);
  if (first < 0x80) return {first, 1};
  if (first < 0xE0) return {(first & 0x1F) << 6 | (byte(1) & 0x3F), 2};
  if (first < 0xF0) return {(first & 0x0F) << 12 | (byte(1) & 0x3F) << 6 | (byte(2) & 0x3F), 3};
  return {(first & 0x07) << 18 | (byte(1) & 0x3F) << 12 | (byte(2) & 0x3F) << 6 | (byte(3) & 0x3F), 4};
}

// The character that ends before `end` > 0.
inline Character character_before(std::string_view text, std::size_t end) {
  std::size_t begin = end - 1;
  while (begin > 0 && (static_cast<unsigned char>(text[begin]) & 0xC0) == 0x80) --begin;
  return character_at(text, begin);
}

// The classes that Split patterns are made of; they exclude each other. class_other has no bit.
enum CharClass : std::uint8_t {
  class_other = 0,
  class_letter = 1,   // \p{L}
  class_number = 2,   // \p{N}
  class_space = 4,    // \s, White_Space
  class_newline = 12  // \r and \n: space, and one bit more
};

// One byte per code point, read once from ICU. The first call in a process builds it (under a millisecond).
class CharClasses {
 public:
  static const CharClasses& get();
  std::uint8_t of(char32_t code_point) const {
    return code_point < table_size ? table_[code_point] : classify(code_point);
  }

 private:
  static constexpr std::size_t table_size = 0x20000;
  CharClasses();
  static std::uint8_t classify(char32_t code_point);
  std::uint8_t table_[table_size];
};

bool is_white_space(char32_t code_point);  // White_Space
bool is_number(char32_t code_point);       // N*
bool is_mark(char32_t code_point);         // M*
bool is_punctuation(char32_t code_point);  // P*, and all ASCII punctuation ("$" and "+" too)
bool is_word(char32_t code_point);         // \w of the Rust regex crate

// GPT-2's byte-level alphabet: each byte is a printable character. 256 strings of one or two bytes.
std::string_view byte_level_character(unsigned char byte);
// The byte that this character stands for.
std::optional<unsigned char> byte_of_character(char32_t character);
// Sets `bytes` to what a token's characters stand for; false if one of them is no byte-level character.
bool from_byte_level(std::string_view token, std::string& bytes);
std::string to_byte_level(std::string_view bytes);

}  // namespace chorus

#include "tokenizer/unicode.h"

#include <unicode/uchar.h>

#include <algorithm>
#include <array>

#include "tokenizer/unicode_recent.h"

namespace chorus {
namespace {

std::uint32_t category_bit(char32_t code_point) {
  return U_MASK(u_charType(static_cast<UChar32>(code_point)));
}

template <std::size_t count>
bool in_ranges(const std::array<CodePointRange, count>& ranges, char32_t code_point) {
  const auto ends_before = [](const CodePointRange& range, char32_t point) { return range.last < point; };
  const auto range = std::lower_bound(ranges.begin(), ranges.end(), code_point, ends_before);
  return range != ranges.end() && range->first <= code_point;
}

// GPT-2's bytes_to_unicode(): the printable Latin-1 characters are themselves, all other bytes come from U+0100 on.
struct ByteLevelAlphabet {
  struct Text {
    std::array<char, 2> utf8{};
    std::size_t size = 0;
  };
  std::array<std::int16_t, 512> byte_of{};
  std::array<Text, 256> text_of{};

  constexpr ByteLevelAlphabet() {
    byte_of.fill(-1);
    unsigned next = 0x100;
    for (unsigned byte = 0; byte < 256; ++byte) {
      const bool printable = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte != 0xAD);
      const unsigned character = printable ? byte : next++;
      byte_of[character] = static_cast<std::int16_t>(byte);
      Text& text = text_of[byte];
      if (character >= 0x80) text.utf8[text.size++] = static_cast<char>(0xC0 | character >> 6);
      text.utf8[text.size++] = static_cast<char>(character < 0x80 ? character : 0x80 | (character & 0x3F));
    }
  }
};
constexpr ByteLevelAlphabet alphabet;

}  // namespace

CharClasses::CharClasses() {
  for (std::size_t code_point = 0; code_point < table_size; ++code_point) {
    table_[code_point] = classify(static_cast<char32_t>(code_point));
  }
}

const CharClasses& CharClasses::get() {
  static const CharClasses instance;
  return instance;
}

std::uint8_t CharClasses::classify(char32_t code_point) {
  const std::uint32_t category = category_bit(code_point);
  if ((category & U_GC_L_MASK) || in_ranges(recent_letters, code_point)) return class_letter;
  if ((category & U_GC_N_MASK) || in_ranges(recent_numbers, code_point)) return class_number;
  if (code_point == U'\r' || code_point == U'\n') return class_newline;
  return is_white_space(code_point) ? class_space : class_other;
}

bool is_white_space(char32_t code_point) {
  return u_isUWhiteSpace(static_cast<UChar32>(code_point)) != 0;
}
bool is_number(char32_t code_point) {
  return (category_bit(code_point) & U_GC_N_MASK) != 0;
}
bool is_mark(char32_t code_point) {
  return (category_bit(code_point) & U_GC_M_MASK) != 0;
}

bool is_punctuation(char32_t code_point) {
  const bool ascii_symbol = code_point < 0x80 && u_ispunct(static_cast<UChar32>(code_point));
  return ascii_symbol || (category_bit(code_point) & (U_GC_P_MASK | (code_point < 0x80 ? U_GC_S_MASK : 0u))) != 0;
}

bool is_word(char32_t code_point) {
  return (category_bit(code_point) & (U_GC_M_MASK | U_GC_ND_MASK | U_GC_PC_MASK)) != 0 ||
         u_isUAlphabetic(static_cast<UChar32>(code_point)) ||
         u_hasBinaryProperty(static_cast<UChar32>(code_point), UCHAR_JOIN_CONTROL);
}

std::string_view byte_level_character(unsigned char byte) {
  const ByteLevelAlphabet::Text& text = alphabet.text_of[byte];
  return {text.utf8.data(), text.size};
}

std::optional<unsigned char> byte_of_character(char32_t character) {
  if (character >= alphabet.byte_of.size() || alphabet.byte_of[character] < 0) return std::nullopt;
  return static_cast<unsigned char>(alphabet.byte_of[character]);
}

bool from_byte_level(std::string_view token, std::string& bytes) {
  bytes.resize(token.size());
  std::size_t size = 0;
  for (std::size_t at = 0; at < token.size();) {
    const Character character = character_at(token, at);
    const auto byte = byte_of_character(character.code_point);
    if (!byte) return false;
    bytes[size++] = static_cast<char>(*byte);
    at += character.size;
  }
  bytes.resize(size);
  return true;
}

std::string to_byte_level(std::string_view bytes) {
  std::string text;
  text.reserve(bytes.size() * 2);
  for (const char byte : bytes) text += byte_level_character(static_cast<unsigned char>(byte));
  return text;
}

}  // namespace chorus

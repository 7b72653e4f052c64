#include "json/utf8.h"

#include <simdjson.h>

namespace chorus {
namespace {

// How long the sequence is that `lead` begins and what its second byte may be (table 3-7); length 0: no lead byte.
struct Lead {
  std::uint8_t length, second_min, second_max;
};

constexpr Lead describe_lead(unsigned char lead) {
  if (lead < 0xC2) return {0, 0, 0};
  if (lead < 0xE0) return {2, 0x80, 0xBF};
  if (lead == 0xE0) return {3, 0xA0, 0xBF};
  if (lead == 0xED) return {3, 0x80, 0x9F};
  if (lead < 0xF0) return {3, 0x80, 0xBF};
  if (lead == 0xF0) return {4, 0x90, 0xBF};
  if (lead < 0xF4) return {4, 0x80, 0xBF};
  if (lead == 0xF4) return {4, 0x80, 0x8F};
  return {0, 0, 0};
}

}  // namespace

Utf8Step utf8_step(std::string_view text, std::size_t at) {
  const auto first = static_cast<unsigned char>(text[at]);
  if (first < 0x80) return {first, 1, true, false};
  const Lead lead = describe_lead(first);
  if (lead.length == 0) return {replacement_character, 1, false, false};
  char32_t code_point = first & (0x7Fu >> lead.length);
  for (std::uint8_t n = 1; n < lead.length; ++n) {
    if (at + n >= text.size()) return {replacement_character, n, false, true};
    const auto next = static_cast<unsigned char>(text[at + n]);
    const unsigned char low = n == 1 ? lead.second_min : 0x80;
    const unsigned char high = n == 1 ? lead.second_max : 0xBF;
    if (next < low || next > high) return {replacement_character, n, false, false};
    code_point = (code_point << 6) | (next & 0x3Fu);
  }
  return {code_point, lead.length, true, false};
}

std::optional<std::size_t> find_invalid_utf8(std::string_view text) {
  if (simdjson::validate_utf8(text.data(), text.size())) return std::nullopt;
  for (std::size_t at = 0; at < text.size();) {
    const Utf8Step step = utf8_step(text, at);
    if (!step.valid) return at;
    at += step.size;
  }
  return std::nullopt;
}

void append_utf8(std::string& out, char32_t code_point) {
  const auto byte = [&](char32_t bits) { out += static_cast<char>(static_cast<unsigned char>(bits)); };
  if (code_point < 0x80) {
    byte(code_point);
  } else if (code_point < 0x800) {
    byte(0xC0 | (code_point >> 6));
    byte(0x80 | (code_point & 0x3F));
  } else if (code_point < 0x10000) {
    byte(0xE0 | (code_point >> 12));
    byte(0x80 | ((code_point >> 6) & 0x3F));
    byte(0x80 | (code_point & 0x3F));
  } else {
    byte(0xF0 | (code_point >> 18));
    byte(0x80 | ((code_point >> 12) & 0x3F));
    byte(0x80 | ((code_point >> 6) & 0x3F));
    byte(0x80 | (code_point & 0x3F));
  }
}

}  // namespace chorus

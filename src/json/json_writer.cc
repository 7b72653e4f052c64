#include <array>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/check.h"
#include "json/json.h"
#include "json/utf8.h"

namespace chorus {
namespace {

void append_escaped(std::string& out, unsigned char byte) {
  static constexpr std::string_view hex = "0123456789abcdef";
  switch (byte) {
    case '"':
      out += "\\\"";
      return;
    case '\\':
      out += "\\\\";
      return;
    case '\b':
      out += "\\b";
      return;
    case '\f':
      out += "\\f";
      return;
    case '\n':
      out += "\\n";
      return;
    case '\r':
      out += "\\r";
      return;
    case '\t':
      out += "\\t";
      return;
    default:
      break;
  }
  out += "\\u00";
  out += hex[byte >> 4];
  out += hex[byte & 15];
}

bool needs_escape(unsigned char byte) {
  return byte < 0x20 || byte == '"' || byte == '\\';
}

void append_string(std::string& out, std::string_view text) {
  out += '"';
  std::size_t at = 0;
  while (at < text.size()) {
    const auto byte = static_cast<unsigned char>(text[at]);
    if (byte < 0x80) {
      if (needs_escape(byte)) {
        append_escaped(out, byte);
      } else {
        out += text[at];
      }
      ++at;
      continue;
    }
    const Utf8Step step = utf8_step(text, at);
    out += step.valid ? text.substr(at, step.size) : replacement_text;
    at += step.size;
  }
  out += '"';
}

// Shortest digits that read back to the same value of the same type; "1" becomes "1.0", so that a reader keeps a float.
template <typename Float>
void append_float(std::string& out, Float number) {
  if (!std::isfinite(number)) {
    out += "null";
    return;
  }
  std::array<char, 64> digits;
  const auto [end, code] = std::to_chars(digits.data(), digits.data() + digits.size(), number);
  CHECK(code == std::errc());
  const std::string_view text(digits.data(), static_cast<std::size_t>(end - digits.data()));
  out += text;
  if (text.find_first_of(".e") == std::string_view::npos) out += ".0";
}

template <typename Integer>
void append_integer(std::string& out, Integer number) {
  std::array<char, 24> digits;
  const auto [end, code] = std::to_chars(digits.data(), digits.data() + digits.size(), number);
  CHECK(code == std::errc());
  out.append(digits.data(), end);
}

}  // namespace

void JsonWriter::separate() {
  if (!first_ && !after_key_) *out_ += ',';
  first_ = false;
  after_key_ = false;
}

JsonWriter& JsonWriter::begin_object() {
  separate();
  *out_ += '{';
  first_ = true;
  return *this;
}

JsonWriter& JsonWriter::end_object() {
  *out_ += '}';
  first_ = false;
  return *this;
}

JsonWriter& JsonWriter::begin_array() {
  separate();
  *out_ += '[';
  first_ = true;
  return *this;
}

JsonWriter& JsonWriter::end_array() {
  *out_ += ']';
  first_ = false;
  return *this;
}

JsonWriter& JsonWriter::key(std::string_view name) {
  separate();
  append_string(*out_, name);
  *out_ += ':';
  after_key_ = true;
  return *this;
}

JsonWriter& JsonWriter::value(std::string_view text) {
  separate();
  append_string(*out_, text);
  return *this;
}

JsonWriter& JsonWriter::value(float number) {
  separate();
  append_float(*out_, number);
  return *this;
}

JsonWriter& JsonWriter::value(double number) {
  separate();
  append_float(*out_, number);
  return *this;
}

JsonWriter& JsonWriter::value(std::int64_t number) {
  separate();
  append_integer(*out_, number);
  return *this;
}

JsonWriter& JsonWriter::value(std::uint64_t number) {
  separate();
  append_integer(*out_, number);
  return *this;
}

JsonWriter& JsonWriter::value(bool flag) {
  separate();
  *out_ += flag ? "true" : "false";
  return *this;
}

JsonWriter& JsonWriter::null() {
  separate();
  *out_ += "null";
  return *this;
}

JsonWriter& JsonWriter::raw(const Json& value) {
  if (value.is_number_unsigned()) return this->value(value.get<std::uint64_t>());
  if (value.is_number_integer()) return this->value(value.get<std::int64_t>());
  separate();
  *out_ += value.dump(-1, ' ', false, Json::error_handler_t::replace);
  return *this;
}

}  // namespace chorus

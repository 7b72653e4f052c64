#include "client/error_text.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "json/member.h"
#include "json/utf8.h"

namespace chorus {
namespace {

constexpr std::size_t shown_bytes_max = 500;

}  // namespace

std::string message_of(const Json& error) {
  const Json& message = member(error, "message");
  if (message.is_string()) return terminal_text(message.get<std::string>());
  return error.is_string() ? terminal_text(error.get<std::string>()) : "an error without a message";
}

std::string error_text(std::string_view body) {
  const Result<Json> answer = parse_json(body);
  if (answer.ok()) {
    if (const Json& error = member(*answer, "error"); !error.is_null()) return message_of(error);
  }
  return terminal_text(body.substr(0, shown_bytes_max));
}

std::string terminal_text(std::string_view text) {
  std::string out;
  for (std::size_t at = 0; at < text.size();) {
    const Utf8Step step = utf8_step(text, at);
    const char32_t point = step.code_point;
    const bool is_control = (point < 0x20 && point != '\n' && point != '\t') || (point >= 0x7F && point < 0xA0);
    if (is_control) {
      out += fmt::format("\\x{:02x}", static_cast<unsigned>(point));
    } else {
      append_utf8(out, point);
    }
    at += step.size;
  }
  return out;
}

}  // namespace chorus

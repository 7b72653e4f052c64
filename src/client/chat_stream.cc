#include "client/chat_stream.h"

#include <nlohmann/json.hpp>

#include "json/json.h"
#include "json/utf8.h"

namespace chorus {
namespace {

constexpr std::size_t shown_bytes_max = 500;

// The member, or null where `value` is no object or has none.
const Json& member(const Json& value, const char* name) {
  static const Json nothing;
  if (!value.is_object()) return nothing;
  const auto found = value.find(name);
  return found == value.end() ? nothing : *found;
}

std::string message_of(const Json& error) {
  const Json& message = member(error, "message");
  if (message.is_string()) return message.get<std::string>();
  return error.is_string() ? error.get<std::string>() : "an error without a message";
}

}  // namespace

Result<void> ChatStream::feed(std::string_view bytes) {
  return events_.feed(bytes, [this](std::string_view data) { return take(data); });
}

Result<void> ChatStream::finish() const {
  if (done_) return {};
  return fail(ErrorCode::unavailable, "the answer broke off: the server closed before the end of its stream");
}

Result<void> ChatStream::take(std::string_view data) {
  if (done_) return {};
  if (data == "[DONE]") {
    done_ = true;
    return {};
  }
  const Result<Json> event = parse_json(data);
  if (!event.ok()) return with_context(event.error(), "an event of the answer");
  if (const Json& error = member(*event, "error"); !error.is_null()) {
    return fail(ErrorCode::unavailable, "the server: {}", terminal_text(message_of(error)));
  }
  const Json& choices = member(*event, "choices");
  if (!choices.is_array()) return fail(ErrorCode::invalid_argument, "an event of the answer has no `choices`");
  if (choices.empty()) return {};  // the usage
  const Json& content = member(member(choices.front(), "delta"), "content");
  if (content.is_string()) on_text_(content.get_ref<const std::string&>());
  return {};
}

std::string error_text(std::string_view body) {
  const Result<Json> answer = parse_json(body);
  if (answer.ok()) {
    if (const Json& error = member(*answer, "error"); !error.is_null()) return terminal_text(message_of(error));
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

#include "client/answer_stream.h"

#include <nlohmann/json.hpp>

#include "client/error_text.h"
#include "json/json.h"
#include "json/member.h"

namespace chorus {
namespace {

std::string_view text_of(const Json& value) {
  return value.is_string() ? std::string_view(value.get_ref<const std::string&>()) : std::string_view();
}

std::uint64_t count_of(const Json& usage, const char* name) {
  const Json& count = member(usage, name);
  return count.is_number_integer() && count >= 0 ? count.get<std::uint64_t>() : 0;
}

}  // namespace

Result<void> AnswerStream::feed(std::string_view bytes) {
  return events_.feed(bytes, [this](std::string_view data) { return take(data); });
}

Result<void> AnswerStream::finish() const {
  if (done_) return {};
  return fail(ErrorCode::unavailable, "the answer broke off: the server closed before the end of its stream");
}

Result<void> AnswerStream::take(std::string_view data) {
  if (done_) return {};
  if (data == "[DONE]") {
    done_ = true;
    return {};
  }
  const Result<Json> event = parse_json(data);
  if (!event.ok()) return with_context(event.error(), "an event of the answer");
  if (const Json& error = member(*event, "error"); !error.is_null()) {
    return fail(ErrorCode::unavailable, "the server: {}", message_of(error));
  }
  const Json& choices = member(*event, "choices");
  if (!choices.is_array()) return fail(ErrorCode::invalid_argument, "an event of the answer has no `choices`");
  AnswerPiece piece;
  if (const Json& usage = member(*event, "usage"); usage.is_object()) {
    piece.usage = TokenUsage{count_of(usage, "prompt_tokens"), count_of(usage, "completion_tokens")};
  }
  if (!choices.empty()) {
    const Json& choice = choices.front();
    const Json& delta = member(choice, "delta");  // of a chat
    piece.has_choice = true;
    piece.text = text_of(member(delta.is_null() ? choice : delta, delta.is_null() ? "text" : "content"));
    piece.reasoning = text_of(member(delta, "reasoning"));
  }
  on_piece_(piece);
  return {};
}

}  // namespace chorus

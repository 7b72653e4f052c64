#include "cli/conversation.h"

#include <utility>

#include "client/model_name.h"
#include "json/file_write.h"
#include "json/json.h"

namespace chorus {
namespace {

constexpr std::size_t answer_bytes_max = 16u << 20;

Json message(const char* role, const std::string& content) {
  return Json{{"role", role}, {"content", content}};
}

}  // namespace

Result<Conversation> Conversation::open(Endpoint endpoint, const std::function<bool()>& stop) {
  Conversation conversation;
  CHORUS_TRY(conversation.model_, first_model(endpoint, stop));
  conversation.endpoint_ = std::move(endpoint);
  return conversation;
}

void Conversation::set_system(const std::string& text) {
  system_ = text;
}

void Conversation::reset() {
  turns_ = Json::array();
}

Json Conversation::all_messages() const {
  Json messages = Json::array();
  if (!system_.empty()) messages.push_back(message("system", system_));
  for (const Json& turn : turns_) messages.push_back(turn);
  return messages;
}

Result<void> Conversation::save(const std::string& path) const {
  if (path.empty()) return fail(ErrorCode::invalid_argument, "/save FILE: the file's name is missing");
  const Json saved = {{"model", model_}, {"parameters", parameters_.values()}, {"messages", all_messages()}};
  return replace_file(path, saved.dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
}

Result<void> Conversation::say(const std::string& text, const std::function<bool()>& stop,
                               const std::function<void(const AnswerPiece&)>& on_piece) {
  Json body = parameters_.values();
  body["model"] = model_;
  body["stream"] = true;
  body["messages"] = all_messages();
  body["messages"].push_back(message("user", text));
  std::string answer;
  AnswerStream stream([&answer, &on_piece](const AnswerPiece& piece) {
    answer += piece.text;
    on_piece(piece);
  });
  const auto on_body = [&](std::string_view bytes) -> Result<void> {
    CHORUS_TRY_VOID(stream.feed(bytes));
    if (answer.size() <= answer_bytes_max) return {};
    return fail(ErrorCode::resource_exhausted, "the answer is longer than {} bytes", answer_bytes_max);
  };
  const std::string request = body.dump(-1, ' ', false, Json::error_handler_t::replace);
  Result<void> result = call(endpoint_, {"POST", "/v1/chat/completions", request, stop, on_body});
  if (result.ok()) result = stream.finish();
  const bool stopped = !result.ok() && result.error().code == ErrorCode::cancelled;
  if (result.ok() || stopped) {
    turns_.push_back(message("user", text));
    turns_.push_back(message("assistant", answer));
  }
  return result;
}

}  // namespace chorus

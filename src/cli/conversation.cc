#include "cli/conversation.h"

#include <array>
#include <utility>

#include "client/chat_stream.h"
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
  std::string body;
  const auto on_body = [&body](std::string_view piece) -> Result<void> {
    body += piece;
    if (body.size() <= answer_bytes_max) return {};
    return fail(ErrorCode::invalid_argument, "the server's list of models is longer than {} bytes", answer_bytes_max);
  };
  CHORUS_TRY_VOID(call(endpoint, {"GET", "/v1/models", "", stop, on_body}));
  const Result<Json> models = parse_json(body);
  Conversation conversation;
  if (models.ok() && models->is_object() && models->contains("data") && (*models)["data"].is_array()) {
    const Json& list = (*models)["data"];
    if (!list.empty() && list[0].is_object() && list[0].contains("id") && list[0]["id"].is_string()) {
      conversation.model_ = list[0]["id"].get<std::string>();
    }
  }
  if (conversation.model_.empty()) {
    return fail(ErrorCode::invalid_argument, "{}/v1/models names no model: is this an OpenAI-compatible server?",
                endpoint.text());
  }
  conversation.endpoint_ = std::move(endpoint);
  return conversation;
}

void Conversation::set_system(const std::string& text) {
  system_ = text;
}

void Conversation::reset() {
  turns_ = Json::array();
}

Result<void> Conversation::set(const std::string& name, const std::string& value) {
  static constexpr std::array<const char*, 5> own = {"model", "messages", "stream", "stream_options", "n"};
  for (const char* one : own) {
    if (name == one) return fail(ErrorCode::invalid_argument, "{} is this program's own: it cannot be set", name);
  }
  if (name.empty()) return fail(ErrorCode::invalid_argument, "/set NAME VALUE, as in /set temperature 0.5");
  if (value.empty()) {
    parameters_.erase(name);
    return {};
  }
  Result<Json> parsed = parse_json(value);
  parameters_[name] = parsed.ok() ? std::move(*parsed) : Json(value);
  return {};
}

Json Conversation::all_messages() const {
  Json messages = Json::array();
  if (!system_.empty()) messages.push_back(message("system", system_));
  for (const Json& turn : turns_) messages.push_back(turn);
  return messages;
}

Result<void> Conversation::save(const std::string& path) const {
  if (path.empty()) return fail(ErrorCode::invalid_argument, "/save FILE: the file's name is missing");
  const Json saved = {{"model", model_}, {"parameters", parameters_}, {"messages", all_messages()}};
  return replace_file(path, saved.dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
}

Result<void> Conversation::say(const std::string& text, const std::function<bool()>& stop,
                               const std::function<void(std::string_view)>& on_text) {
  Json body = parameters_;
  body["model"] = model_;
  body["stream"] = true;
  body["messages"] = all_messages();
  body["messages"].push_back(message("user", text));
  std::string answer;
  ChatStream stream([&answer, &on_text](std::string_view piece) {
    answer += piece;
    on_text(piece);
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

#include "frontend/chat_format.h"

#include <chrono>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "frontend/content_parts.h"
#include "jinja/text.h"
#include "tokenizer/folder_tokens.h"

namespace chorus {
namespace {

// "now" of a request: seconds since 1970, or "2026-01-15T12:00:00", both UTC. Not given: the clock's.
Result<std::int64_t> now_of(const Json& request) {
  namespace chrono = std::chrono;
  constexpr double seconds_max = 253402300799;  // the end of year 9999
  const auto found = request.find("now");
  if (found == request.end() || found->is_null()) {
    return chrono::duration_cast<chrono::seconds>(chrono::system_clock::now().time_since_epoch()).count();
  }
  if (found->is_number() && std::abs(found->get<double>()) <= seconds_max)
    return static_cast<std::int64_t>(std::floor(found->get<double>()));
  if (found->is_string()) {
    int year = 0, hour = 0, minute = 0, second = 0, read = 0;
    unsigned month = 0, day = 0;
    const std::string text = found->get<std::string>();
    const int fields = std::sscanf(text.c_str(), "%4d-%2u-%2u%*1[T ]%2d:%2d:%2d%n", &year, &month, &day, &hour, &minute,
                                   &second, &read);
    const chrono::year_month_day date{chrono::year(year), chrono::month(month), chrono::day(day)};
    const std::string rest = text.substr(static_cast<std::size_t>(read));
    const bool time_ok = hour >= 0 && hour < 24 && minute >= 0 && minute < 60 && second >= 0 && second < 60;
    if (fields == 6 && date.ok() && time_ok && (rest.empty() || rest == "Z")) {
      return chrono::sys_days(date).time_since_epoch() / chrono::seconds(1) + std::int64_t{60} * (hour * 60 + minute) +
             second;
    }
  }
  return fail(ErrorCode::invalid_argument, "now is {}: give seconds since 1970 or \"2026-01-15T12:00:00\", both UTC",
              found->dump());
}

Result<bool> flag_of(const Json& request, const char* name, bool otherwise) {
  const auto found = request.find(name);
  if (found == request.end() || found->is_null()) return otherwise;
  if (!found->is_boolean()) return fail(ErrorCode::invalid_argument, "{}: give true or false", name);
  return found->get<bool>();
}

// The text of a message; of one in parts the last text.
std::optional<std::string> text_of(const Json& message) {
  const auto content = message.is_object() ? message.find("content") : message.end();
  if (content == message.end()) return std::nullopt;
  if (content->is_string()) return content->get<std::string>();
  if (!content->is_array()) return std::nullopt;
  for (auto part = content->rbegin(); part != content->rend(); ++part) {
    const auto text = part->is_object() ? part->find("text") : part->end();
    if (text != part->end() && text->is_string()) return text->get<std::string>();
  }
  return std::nullopt;
}

// The prompt up to the end of the last message's text, whose end a template may have stripped of white space. As
// render_jinja_template in transformers' utils/chat_template_utils.py.
Result<std::string> cut_after_final_message(std::string prompt, const Json& messages) {
  const auto text = messages.empty() ? std::nullopt : text_of(messages.back());
  if (!text) return fail(ErrorCode::invalid_argument, "continue_final_message: the last message has no text to go on");
  const std::string_view from_first = jinja::strip_left(*text), stripped = jinja::strip_right(from_first);
  const std::size_t at = prompt.rfind(stripped);
  if (at == std::string::npos) {
    return fail(ErrorCode::invalid_argument,
                "continue_final_message: the chat template does not show the last message's text as it is");
  }
  const bool kept = std::string_view(prompt).substr(at).starts_with(from_first);
  prompt.resize(at + (kept ? from_first : stripped).size());
  return prompt;
}

}  // namespace

Result<ChatFormat> ChatFormat::load(const std::string& directory) {
  ChatFormat format;
  CHORUS_TRY(const FolderTokens tokens, read_folder_tokens(directory));
  for (const auto& [name, text] : tokens.named) format.special_tokens_[name] = text;
  CHORUS_TRY(format.templates_, ChatTemplates::load(directory, tokens.config));
  return format;
}

Result<std::string> ChatFormat::render(const Json& request) const {
  if (!request.is_object() || !request.contains("messages") || !request["messages"].is_array()) {
    return fail(ErrorCode::invalid_argument, "messages: give a list of {{\"role\", \"content\"}}");
  }
  RenderOptions options;
  CHORUS_TRY(options.now_unix_s, now_of(request));
  Json variables = Json::object();
  for (const auto& [name, text] : special_tokens_) variables[name] = text;
  variables["tools"] = nullptr;  // None, as transformers passes them: a template may ask "tools is not none"
  variables["documents"] = nullptr;
  CHORUS_TRY(const bool goes_on, flag_of(request, "continue_final_message", false));
  CHORUS_TRY(const bool opens, flag_of(request, "add_generation_prompt", !goes_on));
  if (goes_on && opens) {
    return fail(ErrorCode::invalid_argument, "continue_final_message and add_generation_prompt: give one of them");
  }
  for (const auto& [key, value] : request.items()) {
    const bool is_variable = key != "chat_template" && key != "chat_template_kwargs" && key != "now";
    if (is_variable && key != "continue_final_message") variables[key] = value;
  }
  variables["add_generation_prompt"] = opens;
  if (const auto more = request.find("chat_template_kwargs"); more != request.end() && !more->is_null()) {
    if (!more->is_object()) return fail(ErrorCode::invalid_argument, "chat_template_kwargs: give an object");
    variables.update(*more);
  }
  CHORUS_TRY(std::string prompt, render_template(request, variables, options));
  return goes_on ? cut_after_final_message(std::move(prompt), request["messages"]) : prompt;
}

Result<std::string> ChatFormat::render_template(const Json& request, Json& variables,
                                                const RenderOptions& options) const {
  CHORUS_TRY(const auto chosen, templates_.choose(request));
  if (!chosen->takes_content_in_parts()) {
    CHORUS_TRY(variables["messages"], with_contents_as_text(request["messages"]));
  }
  return chosen->render(variables, options);
}

}  // namespace chorus

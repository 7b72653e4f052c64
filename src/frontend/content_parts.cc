#include "frontend/content_parts.h"

#include <array>
#include <nlohmann/json.hpp>

namespace chorus {
namespace {

// Where a part has its text, by its type.
constexpr std::array<std::pair<const char*, const char*>, 4> text_types = {
    {{"text", "text"}, {"input_text", "text"}, {"output_text", "text"}, {"refusal", "refusal"}}};

Result<std::string> text_of_part(const Json& part) {
  if (part.is_string()) return part.get<std::string>();
  const std::string type = part.is_object() && part.contains("type") && part["type"].is_string()
                               ? part["type"].get<std::string>()
                           : part.is_object() && part.contains("text") ? "text"
                                                                       : "";
  for (const auto& [name, key] : text_types) {
    if (type == name && part.contains(key) && part[key].is_string()) return part[key].get<std::string>();
  }
  return fail(
      ErrorCode::invalid_argument,
      "messages: a content part of type \"{}\" is no text; this model takes {{\"type\": \"text\", \"text\": ..}}",
      type.substr(0, 40));
}

}  // namespace

Result<Json> with_contents_as_text(const Json& messages) {
  Json result = messages;
  for (Json& message : result) {
    if (!message.is_object() || !message.contains("content") || !message["content"].is_array()) continue;
    std::string text;
    bool is_first = true;
    for (const Json& part : message["content"]) {
      CHORUS_TRY(const std::string more, text_of_part(part));
      if (!is_first) text += '\n';
      is_first = false;
      text += more;
    }
    message["content"] = text;
  }
  return result;
}

}  // namespace chorus

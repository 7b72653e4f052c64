#include "frontend/prompt_line.h"

#include <algorithm>
#include <filesystem>

namespace chorus {
namespace {

constexpr std::size_t prompt_tokens_max = 1 << 24;

Result<std::vector<TokenId>> token_ids(const Json& value) {
  if (!value.is_array() || value.size() > prompt_tokens_max) {
    return fail(ErrorCode::invalid_argument, "prompt_token_ids: give a list of at most {} whole numbers",
                prompt_tokens_max);
  }
  std::vector<TokenId> ids;
  ids.reserve(value.size());
  for (const Json& entry : value) {
    if (!entry.is_number_integer())
      return fail(ErrorCode::invalid_argument, "prompt_token_ids has {}: give whole numbers", entry.dump());
    // Out of any vocabulary stays out of range when clamped; which range that is, the row's check says.
    const auto id = entry.is_number_unsigned()
                        ? static_cast<std::int64_t>(std::min<std::uint64_t>(entry.get<std::uint64_t>(), INT32_MAX))
                        : entry.get<std::int64_t>();
    ids.push_back(static_cast<TokenId>(std::clamp<std::int64_t>(id, INT32_MIN, INT32_MAX)));
  }
  return ids;
}

// What a chat request has beside its messages for the template (vLLM's names, entrypoints/openai/chat_completion).
struct ChatField {
  const char* name;
  bool (Json::*is_right)() const noexcept;
  const char* accepted;
};
constexpr ChatField chat_fields[] = {
    {"messages", &Json::is_array, "a list"},
    {"tools", &Json::is_array, "a list"},
    {"documents", &Json::is_array, "a list"},
    {"chat_template", &Json::is_string, "a string"},
    {"chat_template_kwargs", &Json::is_object, "an object"},
    {"add_generation_prompt", &Json::is_boolean, "true or false"},
    {"continue_final_message", &Json::is_boolean, "true or false"},
};

const ChatField* chat_field(const std::string& key) {
  const auto found = std::find_if(std::begin(chat_fields), std::end(chat_fields),
                                  [&key](const ChatField& field) { return key == field.name; });
  return found == std::end(chat_fields) ? nullptr : found;
}

Result<void> set_chat_prompt(const Json& line, const ChatFormat* chat, GenerationInput* input) {
  Json request = Json::object();
  for (const auto& [key, value] : line.items()) {
    const ChatField* field = chat_field(key);
    if (field == nullptr || (value.is_null() && key != "messages")) continue;
    if (!(value.*field->is_right)()) return fail(ErrorCode::invalid_argument, "{}: give {}", key, field->accepted);
    request[key] = value;
  }
  if (chat == nullptr) return {};
  auto rendered = chat->render(request);
  if (rendered.ok()) {
    input->prompt = std::move(*rendered);
    input->add_special_tokens = false;  // the template writes them
  } else {
    input->error = rendered.error().message;
  }
  return {};
}

Result<void> set_prompt(const Json& line, const ChatFormat* chat, GenerationInput* input) {
  const int kinds =
      int{line.contains("prompt")} + int{line.contains("prompt_token_ids")} + int{line.contains("messages")};
  if (kinds != 1)
    return fail(ErrorCode::invalid_argument,
                "give one of \"prompt\", \"prompt_token_ids\", \"messages\"; this line has {}", kinds);
  if (line.contains("messages")) return set_chat_prompt(line, chat, input);
  if (line.contains("prompt_token_ids")) {
    CHORUS_TRY(input->prompt_token_ids, token_ids(line["prompt_token_ids"]));
    return {};
  }
  if (!line["prompt"].is_string()) return fail(ErrorCode::invalid_argument, "prompt: give a string");
  input->prompt = line["prompt"].get<std::string>();
  return {};
}

Result<void> set_priority(const Json& value, GenerationInput* input) {
  if (value.is_null()) return {};
  const bool whole =
      value.is_number_integer() && (!value.is_number_unsigned() || value.get<std::uint64_t>() <= INT32_MAX);
  if (!whole || value.get<std::int64_t>() < INT32_MIN) {
    return fail(ErrorCode::invalid_argument, "priority is {}: give a whole number of 32 bits", value.dump());
  }
  input->priority = value.get<std::int32_t>();
  return {};
}

}  // namespace

Result<PromptLine> parse_prompt_line(std::string_view text, const ChatFormat* chat, const GenerationOptions& defaults) {
  CHORUS_TRY(const Json line, parse_json(text));
  if (!line.is_object()) return fail(ErrorCode::invalid_argument, "not a JSON object");
  PromptLine parsed;
  parsed.input.options = defaults;
  CHORUS_TRY_VOID(set_prompt(line, chat, &parsed.input));
  const bool is_chat = line.contains("messages");
  for (const auto& [key, value] : line.items()) {
    const bool of_chats = chat_field(key) != nullptr || key == "max_completion_tokens";
    if (of_chats && !is_chat) {
      return fail(ErrorCode::invalid_argument, "{} is for a line with \"messages\": leave it out", key);
    }
    if (of_chats || key == "prompt" || key == "prompt_token_ids") continue;
    if (key == "id") {
      parsed.id = value;
    } else if (key == "priority") {
      CHORUS_TRY_VOID(set_priority(value, &parsed.input));
    } else {
      CHORUS_TRY_VOID(apply_sampling_option(&parsed.input.options, key, value));
    }
  }
  const auto most = line.find("max_completion_tokens");
  if (most != line.end() && !most->is_null()) {
    CHORUS_TRY_VOID(apply_sampling_option(&parsed.input.options, "max_tokens", *most));
  }
  return parsed;
}

Result<std::shared_ptr<const Tokenizer>> load_tokenizer_if_there(const std::string& directory) {
  if (!std::filesystem::exists(std::filesystem::path(directory) / "tokenizer.json"))
    return std::shared_ptr<const Tokenizer>();
  return load_tokenizer(directory);
}

}  // namespace chorus

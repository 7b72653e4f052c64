#include "frontend/prompt_line.h"

#include <algorithm>

namespace chorus {
namespace {

constexpr std::size_t prompt_tokens_max = 1 << 24;

Error wrong_token_ids(const Json& value) {
  if (value.is_array() && value.size() <= prompt_tokens_max) {
    for (const Json& entry : value) {
      if (entry.is_number_integer()) continue;
      return fail(ErrorCode::invalid_argument, "prompt_token_ids has {}: give whole numbers", entry.dump());
    }
  }
  return fail(ErrorCode::invalid_argument, "prompt_token_ids: give a list of at most {} whole numbers",
              prompt_tokens_max);
}

// What a chat request has beside its messages for the template (vLLM's names, entrypoints/openai/chat_completion).
struct ChatField {
  std::string_view name;
  JsonKind kind;
  const char* accepted;
};
constexpr ChatField chat_fields[] = {
    {"messages", JsonKind::array, "a list"},
    {"tools", JsonKind::array, "a list"},
    {"documents", JsonKind::array, "a list"},
    {"chat_template", JsonKind::string, "a string"},
    {"chat_template_kwargs", JsonKind::object, "an object"},
    {"add_generation_prompt", JsonKind::boolean, "true or false"},
    {"continue_final_message", JsonKind::boolean, "true or false"},
};

const ChatField* chat_field(std::string_view key) {
  const auto found = std::find_if(std::begin(chat_fields), std::end(chat_fields),
                                  [key](const ChatField& field) { return key == field.name; });
  return found == std::end(chat_fields) ? nullptr : found;
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

Result<void> PromptLineParser::set_chat_prompt(GenerationInput* input, bool makes_prompt) {
  Json request = Json::object();
  for (std::size_t i = 0; i < json_.size(); ++i) {
    const ChatField* field = chat_field(json_.key(i));
    if (field == nullptr || (json_.kind(i) == JsonKind::null && field->name != "messages")) continue;
    if (json_.kind(i) != field->kind) {
      return fail(ErrorCode::invalid_argument, "{}: give {}", field->name, field->accepted);
    }
    if (makes_prompt) request[std::string(field->name)] = json_.value(i);
  }
  if (!makes_prompt) return {};
  if (now_unix_s_) request["now"] = *now_unix_s_;
  auto rendered = chat_->render(request);
  if (rendered.ok()) {
    input->prompt = std::move(*rendered);
    input->add_special_tokens = false;  // the template writes them
  } else {
    input->error = rendered.error().message;
  }
  return {};
}

Result<void> PromptLineParser::set_token_ids(std::size_t member, GenerationInput* input, bool makes_prompt) {
  numbers_.clear();
  if (!json_.integers(member, &numbers_) || numbers_.size() > prompt_tokens_max) {
    return wrong_token_ids(json_.value(member));
  }
  if (!makes_prompt) return {};
  std::vector<TokenId>& ids = input->prompt_token_ids.emplace();
  ids.reserve(numbers_.size());
  // Out of any vocabulary stays out of range when clamped; which range that is, the row's check says.
  for (const std::int64_t id : numbers_) {
    ids.push_back(static_cast<TokenId>(std::clamp<std::int64_t>(id, INT32_MIN, INT32_MAX)));
  }
  return {};
}

Result<void> PromptLineParser::set_prompt(PromptLine* line, bool makes_prompt) {
  const auto text = json_.find("prompt"), ids = json_.find("prompt_token_ids"), messages = json_.find("messages");
  const int kinds = int{text.has_value()} + int{ids.has_value()} + int{messages.has_value()};
  if (kinds != 1)
    return fail(ErrorCode::invalid_argument,
                "give one of \"prompt\", \"prompt_token_ids\", \"messages\"; this line has {}", kinds);
  if (messages) return set_chat_prompt(&line->input, makes_prompt);
  if (ids) return set_token_ids(*ids, &line->input, makes_prompt);
  if (json_.kind(*text) != JsonKind::string) return fail(ErrorCode::invalid_argument, "prompt: give a string");
  if (makes_prompt) line->input.prompt = json_.text(*text);
  return {};
}

Result<void> PromptLineParser::read(std::string_view text, PromptLine* line, bool makes_prompt) {
  CHORUS_TRY_VOID(json_.read(text));
  line->input.options = defaults_;
  CHORUS_TRY_VOID(set_prompt(line, makes_prompt));
  const bool is_chat = json_.find("messages").has_value();
  for (std::size_t i = 0; i < json_.size(); ++i) {
    const std::string_view key = json_.key(i);
    const bool of_chats = chat_field(key) != nullptr || key == "max_completion_tokens";
    if (of_chats && !is_chat) {
      return fail(ErrorCode::invalid_argument, "{} is for a line with \"messages\": leave it out", key);
    }
    if (of_chats || key == "prompt" || key == "prompt_token_ids") continue;
    if (key == "id") {
      if (makes_prompt) line->id = json_.value(i);
    } else if (key == "priority") {
      CHORUS_TRY_VOID(set_priority(json_.value(i), &line->input));
    } else {
      CHORUS_TRY_VOID(apply_sampling_option(&line->input.options, key, json_.value(i)));
    }
  }
  const auto most = json_.find("max_completion_tokens");
  if (!most) return {};
  return apply_sampling_option(&line->input.options, "max_tokens", json_.value(*most));
}

Result<PromptLine> PromptLineParser::parse(std::string_view line) {
  PromptLine parsed;
  CHORUS_TRY_VOID(read(line, &parsed, true));
  return parsed;
}

Result<void> PromptLineParser::check(std::string_view line) {
  return read(line, &checked_, false);
}

Result<std::shared_ptr<const Tokenizer>> load_tokenizer_if_there(const std::string& directory) {
  auto tokenizer = load_tokenizer(directory);
  if (!tokenizer && tokenizer.error().code == ErrorCode::not_found) return std::shared_ptr<const Tokenizer>();
  return tokenizer;
}

}  // namespace chorus

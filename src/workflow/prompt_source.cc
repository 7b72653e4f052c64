#include "workflow/prompt_source.h"

#include <filesystem>
#include <nlohmann/json.hpp>

#include "json/file.h"
#include "workflow/confined_path.h"
#include "workflow/json_object.h"

namespace chorus {
namespace {

constexpr std::size_t prompt_bytes_max = 4u << 20;

Result<std::vector<std::pair<std::string, Template>>> parse_messages(const std::string& content,
                                                                     const std::string& path) {
  const auto parsed = parse_json(content);
  if (!parsed.ok()) return with_context(parsed.error(), path);
  const Json& messages = *parsed;
  if (!messages.is_array() || messages.empty()) {
    return fail(ErrorCode::invalid_argument, "{}: must be a list of chat messages {{\"role\", \"content\"}}", path);
  }
  std::vector<std::pair<std::string, Template>> parts;
  for (std::size_t i = 0; i < messages.size(); ++i) {
    const JsonObject message(messages[i], fmt::format("{}: message {}", path, i + 1));
    CHORUS_TRY_VOID(message.check({"role", "content"}));
    CHORUS_TRY(std::string role, message.text("role"));
    CHORUS_TRY(const std::string text, message.text("content"));
    CHORUS_TRY(Template part, Template::parse(text, message.where()));
    parts.emplace_back(std::move(role), std::move(part));
  }
  return parts;
}

}  // namespace

Result<PromptSource> PromptSource::load(const std::string& prompts_dir, const std::string& name) {
  for (const char* extension : {".jinja", ".txt", ".json"}) {
    CHORUS_TRY(const std::string path, confined_path(prompts_dir, name + extension, "prompts_dir"));
    std::error_code error;
    if (!std::filesystem::exists(path, error)) continue;
    PromptSource source;
    source.path_ = path;
    CHORUS_TRY(source.content_, read_text_file(path, prompt_bytes_max));
    source.is_chat_ = std::string_view(extension) == ".json";
    if (source.is_chat_) {
      CHORUS_TRY(source.parts_, parse_messages(source.content_, path));
    } else {
      CHORUS_TRY(Template prompt, Template::parse(source.content_, path));
      source.parts_.emplace_back("", std::move(prompt));
    }
    return source;
  }
  return fail(ErrorCode::not_found, "{}: no prompt template {}.jinja, {}.txt or {}.json", prompts_dir, name, name,
              name);
}

Result<PromptSource::Prompt> PromptSource::render(const Json& fields, std::int64_t now_unix_s) const {
  RenderOptions options;
  options.strict = true;
  options.now_unix_s = now_unix_s;
  Prompt prompt;
  Json messages = Json::array();
  for (const auto& [role, part] : parts_) {
    CHORUS_TRY(std::string text, part.render(fields, options));
    if (is_chat_) {
      messages.push_back({{"role", role}, {"content", std::move(text)}});
    } else {
      prompt.text = std::move(text);
    }
  }
  if (is_chat_) prompt.messages = messages.dump();
  return prompt;
}

}  // namespace chorus

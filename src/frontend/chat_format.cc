#include "frontend/chat_format.h"

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

namespace chorus {
namespace {

constexpr std::uintmax_t template_bytes_max = 4 << 20;

// A special token is a string or an object with its content.
std::string token_text(const Json& config, const char* key) {
  const auto found = config.find(key);
  if (found == config.end()) return "";
  if (found->is_string()) return found->get<std::string>();
  if (found->is_object() && found->contains("content") && (*found)["content"].is_string()) return (*found)["content"].get<std::string>();
  return "";
}

// Several named templates: the one called default.
std::optional<std::string> template_text(const Json& config) {
  const auto found = config.find("chat_template");
  if (found == config.end()) return std::nullopt;
  if (found->is_string()) return found->get<std::string>();
  if (!found->is_array()) return std::nullopt;
  for (const Json& entry : *found) {
    if (entry.is_object() && entry.value("name", "") == "default" && entry.contains("template") && entry["template"].is_string()) {
      return entry["template"].get<std::string>();
    }
  }
  return std::nullopt;
}

Result<std::string> read_text(const std::filesystem::path& path) {
  std::error_code error;
  const auto bytes = std::filesystem::file_size(path, error);
  if (error || bytes > template_bytes_max) {
    return fail(ErrorCode::invalid_argument, "{}: not a readable file of at most {} bytes", path.string(), template_bytes_max);
  }
  std::ifstream in(path, std::ios::binary);
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

}  // namespace

Result<ChatFormat> ChatFormat::load(const std::string& directory) {
  ChatFormat format;
  format.directory_ = directory;
  const std::filesystem::path config_path = std::filesystem::path(directory) / "tokenizer_config.json";
  if (std::filesystem::exists(config_path)) {
    CHORUS_TRY(const Json config, read_json_file(config_path.string()));
    if (!config.is_object()) return fail(ErrorCode::invalid_argument, "{}: not a JSON object", config_path.string());
    format.bos_token_ = token_text(config, "bos_token");
    format.eos_token_ = token_text(config, "eos_token");
    format.template_source_ = template_text(config);
  }
  const std::filesystem::path template_path = std::filesystem::path(directory) / "chat_template.jinja";
  if (std::filesystem::exists(template_path)) {
    CHORUS_TRY(format.template_source_, read_text(template_path));
  }
  if (format.template_source_) {
    CHORUS_TRY(Template parsed, Template::parse(*format.template_source_, "chat_template"));
    format.template_ = std::make_shared<const Template>(std::move(parsed));
  }
  return format;
}

Result<std::string> ChatFormat::render(const Json& request) const {
  if (!request.is_object() || !request.contains("messages") || !request["messages"].is_array()) {
    return fail(ErrorCode::invalid_argument, "messages: give a list of {{\"role\", \"content\"}}");
  }
  Json variables = Json::object();
  variables["bos_token"] = bos_token_;
  variables["eos_token"] = eos_token_;
  variables["add_generation_prompt"] = true;
  for (const auto& [key, value] : request.items()) {
    if (key != "chat_template") variables[key] = value;
  }
  const auto own = request.find("chat_template");
  if (own != request.end() && own->is_string()) {
    CHORUS_TRY(const Template parsed, Template::parse(own->get<std::string>(), "chat_template"));
    return parsed.render(variables);
  }
  if (template_ == nullptr) {
    return fail(ErrorCode::invalid_argument, "{}: the model has no chat template; give \"prompt\" instead of \"messages\", or a chat_template",
                directory_);
  }
  return template_->render(variables);
}

}  // namespace chorus

#include "frontend/chat_templates.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <vector>

#include "json/file.h"

namespace chorus {
namespace {

namespace fs = std::filesystem;
constexpr std::size_t template_bytes_max = 4 << 20;
constexpr std::size_t templates_max = 64;
constexpr const char* default_name = "default";

Result<std::shared_ptr<const Template>> parse(const std::string& source) {
  CHORUS_TRY(Template parsed, Template::parse(source, "chat_template"));
  return std::make_shared<const Template>(std::move(parsed));
}

bool is_given(const Json& request, const char* name) {
  const auto found = request.find(name);
  return found != request.end() && !found->is_null();
}

}  // namespace

void ChatTemplates::add(const std::string& name, const std::string& source) {
  if (templates_.size() < templates_max) templates_.insert_or_assign(name, parse(source));
}

Result<void> ChatTemplates::add_files(const std::string& directory) {
  std::error_code error;
  const fs::path first = fs::path(directory) / "chat_template.jinja",
                 more = fs::path(directory) / "additional_chat_templates";
  std::vector<fs::path> files;
  if (fs::exists(first, error)) files.push_back(first);
  for (const auto& entry : fs::directory_iterator(more, error)) {
    if (entry.path().extension() == ".jinja") files.push_back(entry.path());
  }
  for (const fs::path& file : files) {
    CHORUS_TRY(const std::string source, read_file(file.string(), template_bytes_max));
    add(file == first ? default_name : file.stem().string(), source);
  }
  named_ = files.size() > 1 || (!files.empty() && files[0] != first);
  return {};
}

Result<ChatTemplates> ChatTemplates::load(const std::string& directory, const Json& config) {
  ChatTemplates all;
  all.directory_ = directory;
  CHORUS_TRY_VOID(all.add_files(directory));
  const auto found = config.find("chat_template");
  if (!all.templates_.empty() || found == config.end()) return all;
  if (found->is_string()) all.add(default_name, found->get<std::string>());
  if (!found->is_array()) return all;
  all.named_ = true;
  for (const Json& entry : *found) {
    const auto text = [&entry](const char* key) {
      const bool there = entry.is_object() && entry.contains(key) && entry[key].is_string();
      return there ? std::optional<std::string>(entry[key].get<std::string>()) : std::nullopt;
    };
    const auto name = text("name"), source = text("template");
    if (name && source) all.add(*name, *source);
  }
  return all;
}

Result<std::shared_ptr<const Template>> ChatTemplates::choose(const Json& request) const {
  if (is_given(request, "chat_template")) {
    const Json& own = request["chat_template"];
    if (!own.is_string()) return fail(ErrorCode::invalid_argument, "chat_template: not a string");
    const auto named = templates_.find(own.get_ref<const std::string&>());
    return named_ && named != templates_.end() ? named->second : parse(own.get<std::string>());
  }
  const auto for_tools = named_ && is_given(request, "tools") ? templates_.find("tool_use") : templates_.end();
  if (for_tools != templates_.end()) return for_tools->second;
  const auto usual = templates_.find(default_name);
  if (usual != templates_.end()) return usual->second;
  if (templates_.empty()) {
    return fail(ErrorCode::invalid_argument,
                "{}: the model has no chat template; give \"prompt\" instead of \"messages\", or a chat_template",
                directory_);
  }
  std::vector<std::string> names;
  for (const auto& [name, parsed] : templates_) names.push_back(name);
  return fail(ErrorCode::invalid_argument,
              "{}: the model has several chat templates and none called default; give chat_template, one of {}",
              directory_, fmt::join(names, ", "));
}

}  // namespace chorus

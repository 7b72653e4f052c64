#include "gguf/model_text.h"

#include <algorithm>
#include <filesystem>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string_view>

#include "gguf/documents.h"
#include "json/file.h"
#include "json/python_json.h"

namespace chorus {
namespace {

// What a GGUF file stands for.
struct Document {
  std::string_view name;
  Result<std::string> (*text)(const GgufFile& file);
};
constexpr Document documents[] = {
    {"config.json", gguf_config_json},
    {"generation_config.json", gguf_generation_config_json},
    {"tokenizer.json", gguf_tokenizer_json},
    {"tokenizer_config.json", gguf_tokenizer_config_json},
};

Result<std::optional<std::string>> gguf_text(const std::string& model, const std::string& name) {
  const auto document = std::ranges::find(documents, name, &Document::name);
  if (document == std::end(documents)) return std::optional<std::string>();
  CHORUS_TRY(const GgufFile file, GgufFile::open(model));
  auto text = document->text(file);
  if (!text && text.error().code == ErrorCode::not_found) return std::optional<std::string>();  // no tokenizer
  if (!text) return text.error();
  return std::optional<std::string>(std::move(*text));
}

}  // namespace

Result<std::optional<std::string>> read_model_text(const std::string& model, const std::string& name,
                                                   std::size_t bytes_max) {
  if (is_gguf(model)) return gguf_text(model, name);
  const std::string path = model_text_path(model, name);
  std::error_code error;
  if (!std::filesystem::exists(path, error)) return std::optional<std::string>();
  CHORUS_TRY(std::string text, read_file(path, bytes_max));
  return std::optional<std::string>(std::move(text));
}

Result<std::optional<Json>> read_model_object(const std::string& model, const std::string& name,
                                              std::size_t bytes_max) {
  CHORUS_TRY(const auto text, read_model_text(model, name, bytes_max));
  if (!text) return std::optional<Json>();
  const std::string path = model_text_path(model, name);
  auto object = parse_python_json(*text, bytes_max);
  if (!object) return with_context(object.error(), path);
  if (!object->is_object()) return fail(ErrorCode::invalid_argument, "{}: not a JSON object", path);
  return std::optional<Json>(std::move(*object));
}

std::string model_text_path(const std::string& model, const std::string& name) {
  return is_gguf(model) ? model + " (" + name + ")" : model + "/" + name;
}

}  // namespace chorus

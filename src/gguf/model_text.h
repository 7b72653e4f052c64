// The text files of a model, which lie in its folder or which its GGUF file stands for.
#pragma once

#include <cstddef>
#include <optional>
#include <string>

#include "base/result.h"
#include "json/json.h"

namespace chorus {

// The model's file NAME ("config.json", "tokenizer.json", ...), or nullopt where it has none. `model`: a folder, or a
// file NAME.gguf. `bytes_max` is of a file as it lies there. Errors name the file.
Result<std::optional<std::string>> read_model_text(const std::string& model, const std::string& name,
                                                   std::size_t bytes_max);

// The JSON object in it, as Python reads JSON (json/python_json.h).
Result<std::optional<Json>> read_model_object(const std::string& model, const std::string& name, std::size_t bytes_max);

// How a message calls it: "DIR/config.json", or "FILE.gguf (config.json)".
std::string model_text_path(const std::string& model, const std::string& name);

}  // namespace chorus

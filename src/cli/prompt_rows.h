// The rows of an input file of JSON lines, as generate and bench throughput read it.
#pragma once

#include <iosfwd>
#include <string>
#include <vector>

#include "base/result.h"
#include "frontend/chat_format.h"
#include "frontend/text_generator.h"
#include "json/json.h"

namespace chorus {

struct PromptRows {
  std::vector<GenerationInput> inputs;
  std::vector<Json> ids;  // the row's own, or its number
};

// Appends the rows of `in`; blank lines are skipped. Errors name `name` and the line.
Result<void> read_prompt_lines(std::istream& in, const std::string& name, const ChatFormat& chat,
                               const GenerationOptions& defaults, PromptRows* rows);
// The same of a file.
Result<void> read_prompt_file(const std::string& path, const ChatFormat& chat, const GenerationOptions& defaults,
                              PromptRows* rows);

}  // namespace chorus

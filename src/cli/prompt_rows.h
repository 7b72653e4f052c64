// The rows of an input of JSON lines, one at a time, as generate and bench throughput read them.
#pragma once

#include <cstddef>
#include <fstream>
#include <memory>
#include <optional>
#include <string>

#include "base/result.h"
#include "frontend/chat_format.h"
#include "frontend/prompt_line.h"

namespace chorus {

class PromptReader {
 public:
  // `path` "-": stdin. `chat` outlives this; null: prompts are checked alone (parse_prompt_line).
  static Result<PromptReader> open(const std::string& path, const ChatFormat* chat, const GenerationOptions& defaults);

  // The next row; blank lines are skipped. nullopt: there are no more. Errors name the file and the line.
  Result<std::optional<PromptLine>> next();
  // Whether next() would find something at once: a line, or the beginning of one, or the end.
  bool is_ready();

 private:
  PromptReader(std::string name, std::unique_ptr<std::ifstream> file, const ChatFormat* chat,
               const GenerationOptions& defaults);
  std::istream& in();

  std::string name_;
  std::unique_ptr<std::ifstream> file_;  // null: stdin
  const ChatFormat* chat_;
  GenerationOptions defaults_;
  std::size_t line_number_ = 0;
  std::string line_;
};

// Reads a file to its end and keeps nothing, so that a bad line ends the command before anything runs. The number of
// its rows; nullopt: it can be read only once (stdin, a pipe).
Result<std::optional<std::size_t>> check_prompt_file(const std::string& path, const GenerationOptions& defaults);

}  // namespace chorus

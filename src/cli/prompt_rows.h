// The rows of an input of JSON lines, one at a time, as generate and bench throughput read them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <fstream>
#include <memory>
#include <optional>
#include <string>

#include "base/result.h"
#include "frontend/chat_format.h"
#include "frontend/prompt_line.h"

namespace chorus {

struct InputLine {
  std::string text;
  std::size_t number = 0;  // in the input, from 1
};

class PromptReader {
 public:
  // `path` "-": stdin. `chat` outlives this; null: rows are only checked.
  static Result<PromptReader> open(const std::string& path, const ChatFormat* chat, const GenerationOptions& defaults);

  // The next row; blank lines are skipped. nullopt: there are no more. Errors name the file and the line.
  Result<std::optional<PromptLine>> next();
  // The two halves of that: the next row's line replaces *line (false: there are no more), and what it says.
  Result<bool> read(InputLine* line);
  Result<PromptLine> parse(const InputLine& line);
  Result<void> check(const InputLine& line);  // the same errors
  // Whether read() would find something at once, or within timeout_ms: a line, or the beginning of one, or the end.
  bool is_ready(int timeout_ms = 0);
  void set_now(std::int64_t now_unix_s) { parser_.set_now(now_unix_s); }

 private:
  PromptReader(std::string name, std::unique_ptr<std::ifstream> file, const ChatFormat* chat,
               const GenerationOptions& defaults);
  std::istream& in();
  Error at_line(const Error& error, const InputLine& line) const;

  std::string name_;
  std::unique_ptr<std::ifstream> file_;  // null: stdin
  PromptLineParser parser_;
  std::size_t lines_read_ = 0;
  InputLine line_;
};

// Reads a file to its end and keeps nothing, so that a bad line ends the command before anything runs. The number of
// its rows; nullopt: it can be read only once (stdin, a pipe).
Result<std::optional<std::size_t>> check_prompt_file(const std::string& path, const GenerationOptions& defaults);

}  // namespace chorus

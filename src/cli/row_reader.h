// The rows of `generate` in input order: those of --prompt, then those of --input or stdin.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/digest.h"
#include "base/result.h"
#include "cli/prompt_rows.h"
#include "cli/row_output.h"
#include "frontend/chat_format.h"
#include "frontend/prompt_line.h"

namespace chorus {

struct InputRow {
  PromptLine line;  // its id is the row's number where it was given none
  Hash128 hash;     // of the row as it was given
};

class RowReader {
 public:
  // `path` "-": stdin; empty: no more than `prompts`. A file is read to its end first, so that a bad line ends the
  // command before anything runs. `prompts` and `chat` outlive this.
  static Result<RowReader> open(const std::vector<std::string>& prompts, const std::string& path,
                                const ChatFormat& chat, const GenerationOptions& defaults);

  // Before next(): passes over the rows of `records`, up to the first record that tells of other rows than those of
  // this input. How many do not. Waits for rows that a pipe has not brought yet.
  Result<std::size_t> skip(std::span<const RowRecord> records);
  void set_now(std::int64_t now_unix_s);  // what chat templates take for the time

  // nullopt: there are no more.
  Result<std::optional<InputRow>> next();
  bool is_ready();                                             // next() would not wait
  std::size_t rows() const { return rows_; }                   // passed over and read so far
  std::optional<std::size_t> total() const { return total_; }  // nullopt: not known yet

 private:
  explicit RowReader(const std::vector<std::string>& prompts, const GenerationOptions& defaults)
      : prompts_(prompts), defaults_(defaults) {}
  Result<bool> read(InputLine* line);  // a line of number 0 is one of `prompts_`
  Result<bool> wait_and_read(InputLine* line);
  Result<bool> skip_to(const RowRecord& record, const RowRecord& before);
  Result<PromptLine> parse(InputLine* line);

  const std::vector<std::string>& prompts_;
  GenerationOptions defaults_;
  std::optional<PromptReader> lines_;
  std::size_t prompts_read_ = 0;
  std::deque<InputLine> ahead_;  // read by skip(), and not passed over
  InputLine line_;
  std::size_t rows_ = 0;
  std::optional<std::size_t> total_;
};

}  // namespace chorus

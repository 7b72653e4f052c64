// What of a chat's text is thoughts, answer or calls of tools: the two parsers one behind the other, as a request asks
// for them.
#pragma once

#include <memory>
#include <optional>
#include <string_view>

#include "server/openai/reasoning_split.h"
#include "server/openai/tool_call_parser.h"

namespace chorus {

struct OutputRules {
  std::optional<ReasoningStart> reasoning;     // nullopt: thoughts are not taken apart
  bool shows_reasoning = true;                 // else they are left out
  const ToolCallFormat* tool_calls = nullptr;  // null: calls are text
  bool parallel_tool_calls = true;             // else the first one alone is told of
  bool is_plain() const { return !reasoning && tool_calls == nullptr; }
};

class OutputParser {
 public:
  explicit OutputParser(const OutputRules& rules);
  // Appends to `out`.
  void push(std::string_view text, OutputDelta* out);
  void finish(OutputDelta* out);
  bool thinks() const { return reasoning_ && reasoning_->is_open(); }
  bool has_calls() const { return calls_ != nullptr && calls_->calls() > 0; }

 private:
  void take(std::string_view content, bool ends, OutputDelta* out);

  OutputRules rules_;
  std::optional<ReasoningSplit> reasoning_;
  std::unique_ptr<ToolCallParser> calls_;
};

}  // namespace chorus

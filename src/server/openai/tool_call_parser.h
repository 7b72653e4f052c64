// Finds the calls of tools in what a model writes, as vLLM's parsers do (vllm/tool_parsers/): a state machine that is
// fed with text as it comes and says at once what no later text can change. However the text is cut into pieces, what
// is said is the same; memory is that of what is not said yet.
//
// A call is told from the moment when its name is known and its arguments begin. What looks like a call and is none
// comes as content, as it was written. White space directly before and after a call is not content.
#pragma once

#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "server/openai/output_delta.h"

namespace chorus {

class ToolCallParser {
 public:
  virtual ~ToolCallParser() = default;
  virtual void push(std::string_view text, OutputDelta* out) = 0;
  virtual void finish(OutputDelta* out) = 0;  // the output has ended: what was kept back
  virtual std::uint32_t calls() const = 0;    // that were told so far
};

struct ToolCallFormat {
  const char* name;  // of --tool-call-parser
  std::vector<std::string_view> markers;
  bool short_ids;  // the ids of calls are nine letters and digits, which Mistral's templates insist on
  std::unique_ptr<ToolCallParser> (*make)();
};

// hermes (also Qwen 2.5 and 3): <tool_call>{"name", "arguments"}</tool_call>, any number of them among the text.
// llama3_json, llama4_json: the output is {"name", "parameters"}, or several with ";" between them, behind
// <|python_tag|> or not. mistral: [TOOL_CALLS] and a list of {"name", "arguments"}, or NAME{..}, or NAME[ARGS]{..}.
std::span<const ToolCallFormat> tool_call_formats();
const ToolCallFormat* find_tool_call_format(std::string_view name);  // nullptr: none

}  // namespace chorus

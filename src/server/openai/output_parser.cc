#include "server/openai/output_parser.h"

#include <string>
#include <utility>

namespace chorus {

OutputParser::OutputParser(const OutputRules& rules) : rules_(rules) {
  if (rules.reasoning) reasoning_.emplace(*rules.reasoning);
  if (rules.tool_calls != nullptr) calls_ = rules.tool_calls->make();
}

void OutputParser::push(std::string_view text, OutputDelta* out) {
  if (!reasoning_) return take(text, false, out);
  std::string reasoning, content;
  reasoning_->push(text, &reasoning, &content);
  if (rules_.shows_reasoning) out->reasoning += reasoning;
  take(content, false, out);
}

void OutputParser::finish(OutputDelta* out) {
  std::string reasoning, content;
  if (reasoning_) reasoning_->finish(&reasoning, &content);
  if (rules_.shows_reasoning) out->reasoning += reasoning;
  take(content, true, out);
}

void OutputParser::take(std::string_view content, bool ends, OutputDelta* out) {
  if (calls_ == nullptr) {
    out->content += content;
    return;
  }
  OutputDelta parsed;
  calls_->push(content, &parsed);
  if (ends) calls_->finish(&parsed);
  if (!rules_.parallel_tool_calls)
    std::erase_if(parsed.calls, [](const ToolCallDelta& call) { return call.index > 0; });
  out->append(std::move(parsed));
}

}  // namespace chorus

// Calls of tools as a chat's answer shows them.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "json/json.h"
#include "server/openai/output_delta.h"

namespace chorus {

// Where the ids of an answer's calls come from: no other answer has them, and a stream has those of the whole answer.
struct CallIds {
  std::string key;  // of the answer
  bool is_short = false;
  // "chatcmpl-tool-" and 32 hexadecimal digits, vLLM's form; short: nine letters and digits, Mistral's.
  std::string id(std::uint32_t choice, std::uint32_t call) const;
};

// [{"id", "type": "function", "function": {"name", "arguments"}}, ..].
void write_tool_calls(JsonWriter& json, std::span<const ToolCallDelta> calls, const CallIds& ids, std::uint32_t choice);
// Of a stream: [{"index", "id", "type", "function": {"name", "arguments"}}], and {"index", "function": {"arguments"}}
// of a call whose name was told.
void write_tool_call_deltas(JsonWriter& json, std::span<const ToolCallDelta> calls, const CallIds& ids,
                            std::uint32_t choice);

}  // namespace chorus

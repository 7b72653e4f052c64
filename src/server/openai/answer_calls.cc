#include "server/openai/answer_calls.h"

#include <fmt/format.h>

#include <string_view>

#include "base/siphash.h"

namespace chorus {
namespace {

void write_function(JsonWriter& json, const ToolCallDelta& call) {
  json.key("function").begin_object();
  if (call.name) json.key("name").value(*call.name);
  json.key("arguments").value(call.arguments).end_object();
}

void write_identity(JsonWriter& json, const ToolCallDelta& call, const CallIds& ids, std::uint32_t choice) {
  json.key("id").value(ids.id(choice, call.index)).key("type").value("function");
}

}  // namespace

std::string CallIds::id(std::uint32_t choice, std::uint32_t call) const {
  ByteHash hash({choice, call});
  hash.add(key);
  Hash128 value = hash.value();
  if (!is_short) return fmt::format("chatcmpl-tool-{:016x}{:016x}", value.high, value.low);
  constexpr std::string_view digits = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
  std::string id;
  for (int i = 0; i < 9; ++i, value.low /= digits.size()) id += digits[value.low % digits.size()];
  return id;
}

void write_tool_calls(JsonWriter& json, std::span<const ToolCallDelta> calls, const CallIds& ids,
                      std::uint32_t choice) {
  json.begin_array();
  for (const ToolCallDelta& call : calls) {
    json.begin_object();
    write_identity(json, call, ids, choice);
    write_function(json, call);
    json.end_object();
  }
  json.end_array();
}

void write_tool_call_deltas(JsonWriter& json, std::span<const ToolCallDelta> calls, const CallIds& ids,
                            std::uint32_t choice) {
  json.begin_array();
  for (const ToolCallDelta& call : calls) {
    json.begin_object().key("index").value(call.index);
    if (call.name) write_identity(json, call, ids, choice);
    write_function(json, call);
    json.end_object();
  }
  json.end_array();
}

}  // namespace chorus

// A chat's output as its client sees it: the text of the model taken apart into its thoughts, its answer and the calls
// of tools.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace chorus {

// Of the call `index` of a choice: its name with its first part, and then more and more of its arguments.
struct ToolCallDelta {
  std::uint32_t index = 0;
  std::optional<std::string> name;
  std::string arguments;
};

// What has come; more is appended.
struct OutputDelta {
  std::string reasoning;
  std::string content;
  std::vector<ToolCallDelta> calls;  // by index; of each at most one entry

  void append_call(ToolCallDelta&& call);
  void append(OutputDelta&& more);
  bool is_empty() const { return reasoning.empty() && content.empty() && calls.empty(); }
};

}  // namespace chorus

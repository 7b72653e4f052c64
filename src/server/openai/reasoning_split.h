// Takes the thoughts that a model writes between <think> and </think> apart from its answer, as vLLM's reasoning
// parsers do (vllm/reasoning/). Fed with text as it comes; however that is cut into pieces, what is said is the same.
// Nothing is lost but the two markers, and white space before the first.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "server/openai/call_stream.h"

namespace chorus {

inline constexpr std::string_view think_begin = "<think>", think_end = "</think>";

// What an output is that does not begin with <think>.
enum class ReasoningStyle : std::uint8_t {
  deepseek_r1,  // thoughts up to </think>: the model may leave the first marker out
  qwen3,        // an answer
};
// Of --reasoning-parser; nullopt: there is none of this name.
std::optional<ReasoningStyle> reasoning_style(std::string_view name);
inline constexpr const char* reasoning_parser_names = "deepseek_r1, qwen3";

enum class ReasoningStart : std::uint8_t {
  unless_marked_answer,    // thoughts if <think> comes first
  unless_marked_thoughts,  // thoughts in any case
  answer,                  // </think> has been
};
// Where an output begins, by the prompt's end: many templates open the thoughts, or close them at once. `goes_on`: the
// prompt ends inside of a message (continue_final_message).
ReasoningStart reasoning_start(ReasoningStyle style, std::string_view prompt, bool goes_on);

class ReasoningSplit {
 public:
  explicit ReasoningSplit(ReasoningStart start);
  void push(std::string_view text, std::string* reasoning, std::string* content);
  void finish(std::string* reasoning, std::string* content);
  // What comes next is a thought, unless a marker says otherwise.
  bool is_open() const { return (state_ == State::begin ? otherwise_ : state_) == State::thoughts; }

 private:
  enum class State : std::uint8_t { begin, thoughts, answer };
  bool take(char byte, std::string* reasoning);

  State state_;
  State otherwise_;
  std::string space_;
  MarkerMatch begin_{think_begin}, end_{think_end};
};

}  // namespace chorus

#include "server/openai/reasoning_split.h"

#include <utility>

#include "server/openai/call_scanner.h"

namespace chorus {
namespace {

std::string_view without_space_behind(std::string_view text) {
  while (!text.empty() && is_json_space(text.back())) text.remove_suffix(1);
  return text;
}

}  // namespace

std::optional<ReasoningStyle> reasoning_style(std::string_view name) {
  if (name == "deepseek_r1") return ReasoningStyle::deepseek_r1;
  if (name == "qwen3") return ReasoningStyle::qwen3;
  return std::nullopt;
}

ReasoningStart reasoning_start(ReasoningStyle style, std::string_view prompt, bool goes_on) {
  if (goes_on) {
    const std::size_t begun = prompt.rfind(think_begin), ended = prompt.rfind(think_end);
    const bool thinks = begun != prompt.npos && (ended == prompt.npos || ended < begun);
    return thinks ? ReasoningStart::unless_marked_thoughts : ReasoningStart::answer;
  }
  const std::string_view seen = without_space_behind(prompt);
  if (seen.ends_with(think_begin)) return ReasoningStart::unless_marked_thoughts;
  if (seen.ends_with(think_end)) return ReasoningStart::answer;
  return style == ReasoningStyle::deepseek_r1 ? ReasoningStart::unless_marked_thoughts
                                              : ReasoningStart::unless_marked_answer;
}

ReasoningSplit::ReasoningSplit(ReasoningStart start)
    : state_(start == ReasoningStart::answer ? State::answer : State::begin),
      otherwise_(start == ReasoningStart::unless_marked_thoughts ? State::thoughts : State::answer) {}

void ReasoningSplit::push(std::string_view text, std::string* reasoning, std::string* content) {
  while (!text.empty() && state_ != State::answer) {
    if (!take(text.front(), reasoning)) {  // an answer, and what came before the byte is of it
      *content += std::exchange(space_, {});
      *content += begin_.take_seen();
      break;
    }
    text.remove_prefix(1);
  }
  *content += text;
}

// False: it is an answer from its beginning.
bool ReasoningSplit::take(char byte, std::string* reasoning) {
  if (state_ == State::begin) {
    if (begin_.seen().empty() && is_json_space(byte)) {
      space_ += byte;
      return true;
    }
    const MarkerMatch::Step step = begin_.push(byte);
    if (step == MarkerMatch::Step::partial) return true;
    state_ = step == MarkerMatch::Step::whole ? State::thoughts : otherwise_;
    if (step == MarkerMatch::Step::whole) return true;
    if (state_ == State::answer) return false;
    *reasoning += std::exchange(space_, {});
    for (const char seen : begin_.take_seen()) take(seen, reasoning);  // it may be the beginning of the other marker
  }
  const MarkerMatch::Step step = end_.push(byte);
  if (step == MarkerMatch::Step::partial) return true;
  if (step == MarkerMatch::Step::whole) {
    state_ = State::answer;
    return true;
  }
  const std::string_view seen = end_.take_seen();
  *reasoning += seen;
  if (!seen.empty()) return take(byte, reasoning);
  *reasoning += byte;
  return true;
}

void ReasoningSplit::finish(std::string* reasoning, std::string* content) {
  std::string* const rest = state_ == State::thoughts || otherwise_ == State::thoughts ? reasoning : content;
  if (state_ == State::begin) {
    *rest += std::exchange(space_, {});
    *rest += begin_.take_seen();
  }
  *reasoning += end_.take_seen();
}

}  // namespace chorus

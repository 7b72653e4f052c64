#include "server/openai/call_stream.h"

#include <utility>

namespace chorus {

MarkerMatch::Step MarkerMatch::push(char byte) {
  if (byte != marker_[matched_]) return Step::none;
  if (++matched_ < marker_.size()) return Step::partial;
  matched_ = 0;
  return Step::whole;
}

void OutputDelta::append_call(ToolCallDelta&& call) {
  if (calls.empty() || calls.back().index != call.index) return calls.push_back(std::move(call));
  if (call.name) calls.back().name = std::move(call.name);
  calls.back().arguments += call.arguments;
}

void OutputDelta::append(OutputDelta&& more) {
  reasoning += more.reasoning;
  content += more.content;
  for (ToolCallDelta& call : more.calls) append_call(std::move(call));
}

void CallStream::push(std::string_view text, OutputDelta* out) {
  out_ = out;
  for (const char byte : text) {
    while (!take(byte)) {
    }
  }
  tell();
}

void CallStream::finish(OutputDelta* out) {
  out_ = out;
  tell();
  if (!told_) give_up();
  content(marker_.take_seen());
  out_->content += std::exchange(space_, {});
}

MarkerMatch::Step CallStream::take_before_marker(char byte) {
  MarkerMatch::Step step = marker_.push(byte);
  if (step == MarkerMatch::Step::none) {
    content(marker_.take_seen());
    step = marker_.push(byte);  // it may be the first of another one
    if (step == MarkerMatch::Step::none) content(byte);
  }
  if (step == MarkerMatch::Step::whole) keep(marker_.marker());
  return step;
}

void CallStream::content(char byte) {
  if (is_json_space(byte)) {
    if (!behind_call_) space_ += byte;
    return;
  }
  behind_call_ = false;
  out_->content += std::exchange(space_, {});
  out_->content += byte;
}

void CallStream::give_up() {
  content(std::exchange(raw_, {}));
}

CallStream::CallStep CallStream::take_of_call(char byte) {
  const CallScanner::Step step = scanner_.push(byte);
  if (step == CallScanner::Step::no_call) {
    give_up();
    return CallStep::no_call;
  }
  if (step == CallScanner::Step::more) {
    if (!scanner_.is_call()) keep(byte);
    return CallStep::more;
  }
  tell();
  told_ = false;
  behind_call_ = true;
  scanner_ = CallScanner();
  return step == CallScanner::Step::done ? CallStep::ended : CallStep::ended_before;
}

void CallStream::tell() {
  if (!scanner_.is_call()) return;
  ToolCallDelta delta;
  if (!std::exchange(told_, true)) {
    delta.name = scanner_.name();
    ++calls_;
    space_.clear();
    forget();
  }
  delta.index = calls_ - 1;
  delta.arguments = scanner_.take_arguments();
  if (delta.name || !delta.arguments.empty()) out_->append_call(std::move(delta));
}

}  // namespace chorus

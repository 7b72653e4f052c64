#include "server/openai/tool_call_parser.h"

#include <algorithm>
#include <string>
#include <utility>

#include "server/openai/call_stream.h"

namespace chorus {
namespace {

constexpr std::string_view hermes_begin = "<tool_call>", hermes_end = "</tool_call>";
constexpr std::string_view llama_begin = "<|python_tag|>";
constexpr std::string_view mistral_begin = "[TOOL_CALLS]", mistral_arguments = "[ARGS]", mistral_id = "[CALL_ID]";

bool is_letter_or_digit(char byte) {
  return (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') || (byte >= '0' && byte <= '9');
}

class HermesCalls final : public CallStream {
 public:
  HermesCalls() : CallStream(hermes_begin) {}

 private:
  enum class State : std::uint8_t { outside, before_object, object, behind_object };

  bool take(char byte) override {
    switch (state_) {
      case State::outside:
        return take_outside(byte);
      case State::before_object:
        return take_before_object(byte);
      case State::object:
        return take_object(byte);
      case State::behind_object:
        return take_behind_object(byte);
    }
    return true;
  }

  bool take_outside(char byte) {
    if (take_before_marker(byte) == MarkerMatch::Step::whole) state_ = State::before_object;
    return true;
  }

  bool take_before_object(char byte) {
    if (is_json_space(byte)) {
      keep(byte);
      return true;
    }
    begin_object();
    state_ = State::object;
    return false;
  }

  bool take_object(char byte) {
    const CallStep step = take_of_call(byte);
    if (step == CallStep::more) return true;
    state_ = step == CallStep::no_call ? State::outside : State::behind_object;
    return step == CallStep::ended;
  }

  // The end's marker is not asked for: what else comes is content.
  bool take_behind_object(char byte) {
    if (end_.seen().empty() && is_json_space(byte)) return true;
    const MarkerMatch::Step step = end_.push(byte);
    if (step == MarkerMatch::Step::partial) return true;
    state_ = State::outside;
    for (const char seen : end_.take_seen()) take_outside(seen);  // it may be the beginning of the other marker
    return step == MarkerMatch::Step::whole;
  }

  State state_ = State::outside;
  MarkerMatch end_{hermes_end};
};

class LlamaCalls final : public CallStream {
 public:
  LlamaCalls() : CallStream(llama_begin) {}

 private:
  enum class State : std::uint8_t { begin, tag, before_object, object, behind_object, text };

  bool take(char byte) override {
    switch (state_) {
      case State::begin:
        if (!is_json_space(byte)) return leave_for(State::tag);
        content(byte);
        return true;
      case State::tag:
        return take_tag(byte);
      case State::before_object:
        return take_before_object(byte);
      case State::object:
        return take_object(byte);
      case State::behind_object:
        if (byte != ';') return take_before_object(byte);
        keep(byte);
        return true;
      case State::text:
        content(byte);
        return true;
    }
    return true;
  }

  bool take_tag(char byte) {
    const MarkerMatch::Step step = marker().push(byte);
    if (step == MarkerMatch::Step::partial) return true;
    keep(step == MarkerMatch::Step::whole ? marker().marker() : marker().take_seen());
    state_ = State::before_object;
    return step == MarkerMatch::Step::whole;
  }

  bool take_before_object(char byte) {
    if (is_json_space(byte)) {
      keep(byte);
      return true;
    }
    if (byte == '{') {
      begin_object();
      return leave_for(State::object);
    }
    give_up();
    return leave_for(State::text);
  }

  bool take_object(char byte) {
    const CallStep step = take_of_call(byte);
    if (step == CallStep::more) return true;
    state_ = step == CallStep::no_call ? State::text : State::behind_object;
    return step == CallStep::ended;
  }

  bool leave_for(State state) {
    state_ = state;
    return false;
  }

  State state_ = State::begin;
};

class MistralCalls final : public CallStream {
 public:
  MistralCalls() : CallStream(mistral_begin) {}

 private:
  enum class State : std::uint8_t { outside, begin, item, object, behind_item, name, word, id, before_arguments };

  bool take(char byte) override {
    switch (state_) {
      case State::outside:
        return take_outside(byte);
      case State::begin:
        return take_begin(byte);
      case State::item:
        return take_item(byte);
      case State::object:
        return take_object(byte);
      case State::behind_item:
        return take_behind_item(byte);
      case State::name:
        return take_name(byte);
      case State::word:
        return take_word(byte);
      case State::id:
        keep(byte);
        return is_letter_or_digit(byte) || (byte == '[' ? begin_word() : refuse());
      case State::before_arguments:
        return take_before_arguments(byte);
    }
    return true;
  }

  bool take_outside(char byte) {
    if (take_before_marker(byte) != MarkerMatch::Step::whole) return true;
    in_list_ = false;
    return go(State::begin);
  }

  bool take_begin(char byte) {
    if (is_json_space(byte)) return kept(byte, State::begin);
    if (byte == '[') {
      in_list_ = true;
      return kept(byte, State::item);
    }
    if (byte == '{') return take_item(byte);
    name_.clear();
    state_ = State::name;
    return false;
  }

  bool take_item(char byte) {
    if (is_json_space(byte)) return kept(byte, State::item);
    if (byte != '{') return give_up_before();
    begin_object();
    state_ = State::object;
    return false;
  }

  bool take_object(char byte) {
    const CallStep step = take_of_call(byte);
    if (step == CallStep::more) return true;
    state_ = step != CallStep::no_call && in_list_ ? State::behind_item : State::outside;
    return step == CallStep::ended;
  }

  bool take_behind_item(char byte) {
    if (is_json_space(byte)) return true;
    if (byte == ',') return go(State::item);
    state_ = State::outside;
    return byte == ']';
  }

  bool take_name(char byte) {
    if (is_letter_or_digit(byte) || byte == '_' || byte == '-' || byte == '.') {
      name_ += byte;
      return kept(byte, State::name);
    }
    if (name_.empty()) return give_up_before();
    if (byte == '[') {
      keep(byte);
      return begin_word();
    }
    return take_before_arguments(byte);
  }

  bool begin_word() {
    word_.assign(1, '[');
    return go(State::word);
  }

  // [ARGS], or [CALL_ID] and an id, which is not the client's.
  bool take_word(char byte) {
    word_ += byte;
    const bool begins_one = mistral_arguments.starts_with(word_) || mistral_id.starts_with(word_);
    if (!begins_one) return give_up_before();
    keep(byte);
    if (word_ == mistral_arguments) state_ = State::before_arguments;
    if (word_ == mistral_id) state_ = State::id;
    return true;
  }

  bool take_before_arguments(char byte) {
    if (is_json_space(byte)) return kept(byte, State::before_arguments);
    if (byte != '{') return give_up_before();
    begin_arguments(name_);
    state_ = State::object;
    return false;
  }

  bool kept(char byte, State state) {
    keep(byte);
    return go(state);
  }
  bool go(State state) {
    state_ = state;
    return true;
  }
  // The byte is looked at again.
  bool give_up_before() {
    give_up();
    state_ = State::outside;
    return false;
  }
  bool refuse() {
    give_up();
    return go(State::outside);
  }

  State state_ = State::outside;
  bool in_list_ = false;
  std::string name_, word_;
};

template <typename T>
std::unique_ptr<ToolCallParser> make_parser() {
  return std::make_unique<T>();
}

}  // namespace

std::span<const ToolCallFormat> tool_call_formats() {
  static const ToolCallFormat formats[] = {
      {"hermes", {hermes_begin, hermes_end}, false, make_parser<HermesCalls>},
      {"llama3_json", {llama_begin}, false, make_parser<LlamaCalls>},
      {"llama4_json", {llama_begin}, false, make_parser<LlamaCalls>},
      {"mistral", {mistral_begin, mistral_arguments, mistral_id}, true, make_parser<MistralCalls>},
  };
  return formats;
}

const ToolCallFormat* find_tool_call_format(std::string_view name) {
  const auto formats = tool_call_formats();
  const auto found =
      std::ranges::find(formats, name, [](const ToolCallFormat& format) { return std::string_view(format.name); });
  return found == formats.end() ? nullptr : &*found;
}

}  // namespace chorus

#include "server/openai/call_scanner.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "json/json.h"

namespace chorus {
namespace {

// What the JSON of a string says; nullopt: it is not valid.
std::optional<std::string> text_of(const std::string& json) {
  const auto parsed = parse_json(json);
  if (!parsed.ok() || !parsed->is_string()) return std::nullopt;
  return parsed->get<std::string>();
}

}  // namespace

JsonValueEnd::Step JsonValueEnd::push(char byte) {
  const bool ends_scalar = byte == ',' || byte == '}' || byte == ']' || byte == ':' || is_json_space(byte);
  switch (kind_) {
    case Kind::none:
      if (ends_scalar) return Step::no_value;
      kind_ = byte == '"' ? Kind::string : byte == '{' || byte == '[' ? Kind::container : Kind::scalar;
      in_string_ = byte == '"';
      depth_ = 1;
      return Step::inside;
    case Kind::scalar:
      return ends_scalar ? Step::ended_before : Step::inside;
    case Kind::string:
    case Kind::container:
      break;
  }
  if (in_string_) {
    if (byte == '"' && !escaped_) in_string_ = false;
    escaped_ = byte == '\\' && !escaped_;
    return kind_ == Kind::string && !in_string_ ? Step::ends_here : Step::inside;
  }
  if (byte == '"') in_string_ = true;
  if (byte == '{' || byte == '[') ++depth_;
  if (byte == '}' || byte == ']') --depth_;
  return depth_ == 0 ? Step::ends_here : Step::inside;
}

CallScanner::Step CallScanner::push(char byte) {
  if (state_ == State::value) return inside_value(byte);
  if (state_ == State::key) {
    text_ += byte;
    if (key_end_.push(byte) != JsonValueEnd::Step::ends_here) return Step::more;
    const auto key = text_of(text_);
    const bool names_arguments = key == "arguments" || key == "parameters";
    member_ = names_arguments && !has_arguments_ ? Member::arguments
              : key == "name" && !name_          ? Member::name
                                                 : Member::other;
    state_ = State::colon;
    return Step::more;
  }
  if (is_json_space(byte) && state_ != State::begin) return Step::more;
  switch (state_) {
    case State::begin:
      state_ = State::key_or_end;
      return byte == '{' ? Step::more : Step::no_call;
    case State::key_or_end:
      if (byte != '"') return broken();
      state_ = State::key;
      text_ = byte;
      key_end_ = {};
      key_end_.push(byte);
      return Step::more;
    case State::colon:
      state_ = State::value_begin;
      return byte == ':' ? Step::more : broken();
    case State::value_begin:
      return begin_value(byte);
    default:
      return end_member(byte);
  }
}

CallScanner::Step CallScanner::begin_value(char byte) {
  value_end_ = {};
  if (value_end_.push(byte) == JsonValueEnd::Step::no_value) return broken();
  state_ = State::value;
  text_.clear();
  if (member_ == Member::name && !value_end_.is_string()) return broken();
  if (member_ == Member::arguments) {
    has_arguments_ = true;
    if (!value_end_.is_string()) arguments_ += byte;
  }
  if (value_end_.is_string()) text_ = byte;
  return Step::more;
}

CallScanner::Step CallScanner::inside_value(char byte) {
  const JsonValueEnd::Step step = value_end_.push(byte);
  if (step == JsonValueEnd::Step::ended_before) {
    const Step ended = end_value();
    return ended != Step::more ? ended : push(byte);
  }
  if (member_ == Member::arguments && !value_end_.is_string()) {
    arguments_ += byte;
  } else if (member_ != Member::other) {
    text_ += byte;
  }
  return step == JsonValueEnd::Step::ends_here ? end_value() : Step::more;
}

// Some models write the arguments' JSON as a string: it is their text.
CallScanner::Step CallScanner::end_value() {
  state_ = State::comma_or_end;
  const bool is_text = member_ == Member::name || (member_ == Member::arguments && value_end_.is_string());
  if (is_text) {
    auto text = text_of(text_);
    if (member_ == Member::name) {
      if (!text || text->empty()) return broken();
      name_ = std::move(text);
    } else {
      arguments_ += text.value_or(text_);
    }
  }
  return bare_ ? Step::done : Step::more;
}

CallScanner::Step CallScanner::end_member(char byte) {
  if (byte == ',') {
    state_ = State::key_or_end;
    return Step::more;
  }
  if (byte != '}') return broken();
  return is_call() ? Step::done : Step::no_call;
}

}  // namespace chorus

// The JSON of one tool call as a model writes it, byte by byte: an object {"name": TEXT, "arguments": {..}} (Llama's
// models write "parameters"), its members in any order and others among them, or the arguments alone behind a name
// that stands before them. What the arguments are goes to the client as the model wrote it; they are looked at only
// as far as their end needs, so a model that writes them wrong is not corrected. Pure; a byte costs constant time.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>

namespace chorus {

constexpr bool is_json_space(char byte) {
  return byte == ' ' || byte == '\n' || byte == '\t' || byte == '\r';
}

// Where a JSON value ends: braces and brackets are counted, strings are passed over.
class JsonValueEnd {
 public:
  enum class Step : std::uint8_t { inside, ends_here, ended_before, no_value };
  // The first byte is that of the value, no white space.
  Step push(char byte);
  bool is_string() const { return kind_ == Kind::string; }

 private:
  enum class Kind : std::uint8_t { none, string, container, scalar };
  Kind kind_ = Kind::none;
  std::uint64_t depth_ = 0;
  bool in_string_ = false, escaped_ = false;
};

class CallScanner {
 public:
  enum class Step : std::uint8_t {
    more,
    done,         // the call ends with this byte
    done_before,  // the call is over, and the byte is not of it
    no_call,      // this is none, whatever follows; never once is_call()
  };
  // An object whose first byte comes next.
  CallScanner() = default;
  // The arguments of a call of `name`; their first byte comes next.
  explicit CallScanner(std::string name) : state_(State::value_begin), member_(Member::arguments), bare_(true) {
    name_ = std::move(name);
  }

  Step push(char byte);
  // It is known to be a call: its name is known and its arguments have begun.
  bool is_call() const { return name_.has_value() && has_arguments_; }
  const std::string& name() const { return *name_; }
  // Of the arguments what has come since the last time.
  std::string take_arguments() { return std::exchange(arguments_, {}); }

 private:
  enum class State : std::uint8_t { begin, key_or_end, key, colon, value_begin, value, comma_or_end };
  enum class Member : std::uint8_t { other, name, arguments };
  Step begin_value(char byte);
  Step inside_value(char byte);
  Step end_value();
  Step end_member(char byte);
  Step broken() const { return is_call() ? Step::done_before : Step::no_call; }

  State state_ = State::begin;
  Member member_ = Member::other;
  bool bare_ = false;
  JsonValueEnd key_end_, value_end_;
  std::string text_;  // of a key, a name, or arguments that are a string
  std::optional<std::string> name_;
  bool has_arguments_ = false;
  std::string arguments_;
};

}  // namespace chorus

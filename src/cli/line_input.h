// The lines that a person types, or a pipe holds.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "base/result.h"

namespace chorus {

class LineInput {
 public:
  static constexpr std::size_t line_bytes_max = 1u << 20;

  // Of stdin; with editing, a history and a prompt (libedit) where stdin and stdout are a terminal. `stop` is asked ten
  // times a second while it waits.
  explicit LineInput(std::function<bool()> stop);
  ~LineInput();
  bool is_terminal() const;
  // Without its newline; nullopt: the input has ended. cancelled: `stop` said so; invalid_argument: the line is longer
  // than line_bytes_max, or cannot be read.
  Result<std::optional<std::string>> next();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace chorus

// How far a command is: one line rewritten in place on a terminal, plain lines now and then otherwise, on stderr.
#pragma once

#include <optional>
#include <string>

#include "base/clock.h"
#include "frontend/offline.h"

namespace chorus {

class ProgressLine {
 public:
  ProgressLine(std::string what, bool disabled, std::optional<std::size_t> total);
  ~ProgressLine();  // ends the terminal's line
  void update(const GenerationProgress& progress);

 private:
  std::string what_;
  bool disabled_;
  std::optional<std::size_t> total_;  // rows; nullopt: not known
  bool terminal_;
  Nanoseconds started_;
  Nanoseconds next_;
  bool printed_ = false;
};

}  // namespace chorus

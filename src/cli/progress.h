// How far a command is: one line rewritten in place on a terminal, plain lines now and then otherwise, on stderr.
#pragma once

#include <string>

#include "base/clock.h"
#include "frontend/text_generator.h"

namespace chorus {

class ProgressLine {
 public:
  ProgressLine(std::string what, bool disabled);
  void update(const GenerationProgress& progress);
  void finish();  // ends the terminal's line

 private:
  std::string what_;
  bool disabled_;
  bool terminal_;
  Nanoseconds started_;
  Nanoseconds next_;
  bool printed_ = false;
};

}  // namespace chorus

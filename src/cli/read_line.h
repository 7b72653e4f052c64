// Lines of input whose length nobody promised.
#pragma once

#include <cstddef>
#include <istream>
#include <string>

#include "base/result.h"

namespace chorus {

// The next line, without its newline, replaces *line. False: the input has ended. invalid_argument: the line is longer
// than bytes_max, of which no more than that was read, or it cannot be read; `name` and `number` are for the message.
Result<bool> read_line(std::istream& in, const std::string& name, std::size_t number, std::size_t bytes_max,
                       std::string* line);

}  // namespace chorus

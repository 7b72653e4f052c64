// Names and keys that nobody can guess.
#pragma once

#include <string>

#include "base/result.h"

namespace chorus {

// Two hexadecimal digits for each of `bytes` bytes (at most 256) of the kernel's random numbers. Errors: internal.
Result<std::string> random_hex(std::size_t bytes);

}  // namespace chorus

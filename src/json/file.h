// A whole file as one string, with a limit: every file that a user names is read through this.
#pragma once

#include <cstddef>
#include <string>

#include "base/result.h"

namespace chorus {

// Fails when the file is missing, is no regular file, cannot be read or is larger than `bytes_max`; the message names
// it. The string has 64 bytes of spare capacity behind its end, which is what the JSON parser reads past it.
Result<std::string> read_file(const std::string& path, std::size_t bytes_max);

// The same for a text that a person wrote: the byte order mark that editors put in front of it is left out.
Result<std::string> read_text_file(const std::string& path, std::size_t bytes_max);

}  // namespace chorus

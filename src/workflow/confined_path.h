// Paths that a workflow names may not leave the directory that they are for.
#pragma once

#include <string>

#include "base/result.h"

namespace chorus {

// `name` inside `root` (absolute), links resolved; neither need exist. Refused, with a message that names it: an
// absolute name, one with "..", one that leads outside through a link. `what` says which key it came from.
Result<std::string> confined_path(const std::string& root, const std::string& name, const std::string& what);

// A plain file name without directories, not hidden: what an output file may be called.
Result<void> check_file_name(const std::string& name, const std::string& what);

}  // namespace chorus

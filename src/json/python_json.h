// JSON as Python's json module reads it, and so as the files of a model folder may hold it.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "base/result.h"
#include "json/json.h"

namespace chorus {

// As parse_json() (json/json.h), but: an integer beyond 64 bits becomes the nearest double, a number beyond double an
// infinity; NaN, Infinity and -Infinity are numbers; of equal keys the last counts; a lone surrogate becomes U+FFFD;
// 1,000 levels, which is about what Python nests. Whoever reads a number checks that it can be used.
Result<Json> parse_python_json(std::string_view text, std::size_t bytes_max);
// The message begins with `path`.
Result<Json> read_python_json_file(const std::string& path, std::size_t bytes_max);

}  // namespace chorus

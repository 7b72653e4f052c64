// The records of a load node: JSON lines, a JSON array or CSV, in the file's order.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "json/json.h"
#include "workflow/workflow.h"

namespace chorus {

// Each record is an object that has the primary key, as a string or an integer, and no two have the same. Errors name
// the file and the line (JSON lines, CSV) or the rows.
Result<std::vector<Json>> load_records(const LoadParams& params);

// RFC 4180, with LF for CRLF too: the first record names the fields, all values are strings. `name` begins each
// message.
Result<std::vector<Json>> parse_csv(std::string_view text, const std::string& name);

}  // namespace chorus

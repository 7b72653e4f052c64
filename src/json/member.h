// Looking into a value of which nothing is known: what a server or a file says.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "json/json.h"

namespace chorus {

// The member, or null where `value` is no object or has none.
const Json& member(const Json& value, const std::string& name);

}  // namespace chorus

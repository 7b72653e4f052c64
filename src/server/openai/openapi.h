// GET /openapi.json: what the routes take and give, as openapi.json beside this file describes them.
#pragma once

#include <string>
#include <string_view>

namespace chorus {

std::string openapi_json(std::string_view version);  // of the program

}  // namespace chorus

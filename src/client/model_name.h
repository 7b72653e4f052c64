// What a server calls its model.
#pragma once

#include <functional>
#include <string>

#include "base/result.h"
#include "client/http_client.h"

namespace chorus {

// The first model that /v1/models names. invalid_argument: it names none; else call()'s errors.
Result<std::string> first_model(const Endpoint& endpoint, const std::function<bool()>& stop);

}  // namespace chorus

// Whether this engine can serve a request at all. A request that passes always ends.
#pragma once

#include <optional>
#include <string>

#include "request/request.h"
#include "sched/scheduler.h"

namespace chorus {

// What is wrong, the limit and what to do next; nothing when the request can be served. It is refused when it may need
// more KV blocks than there are, even if it might stop earlier: whether a request is served does not depend on its
// output.
std::optional<std::string> validate_request(const Request& request, const SchedulerConfig& config);

}  // namespace chorus

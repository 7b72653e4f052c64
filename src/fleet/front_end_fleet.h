// The fleet as a front end in a separate process has it: a Dispatcher over a socket to each engine. The sockets, and
// the news of the replicas, come from the host (client_link.h) in another process, which is not on a request's way:
// while it is busy or stopped, requests go on.
#pragma once

#include <memory>
#include <string>

#include "base/result.h"
#include "config/engine_config.h"
#include "fleet/fleet.h"
#include "net/unique_fd.h"
#include "request/request.h"

namespace chorus {

// `to_host`: the other end of a ClientLink's connection. `prefix_key`: the host's. poll() fails when the host is gone.
Result<std::unique_ptr<Fleet>> make_front_end_fleet(const EngineConfig& config, ClientId client, UniqueFd to_host,
                                                    FleetTimes times, const PrefixKey& prefix_key);

}  // namespace chorus

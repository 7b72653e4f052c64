// A world whose workers are on several nodes: each of them opens a door (parallel/transport/tcp_transport.h), tells the
// head its contact, and joins when the head has those of all. The head is the one place that all of them have proven
// themselves to, so nothing else has to be agreed on: no store, no port.
#pragma once

#include <memory>

#include "base/result.h"
#include "net/connection.h"
#include "parallel/transport/transport.h"
#include "protocol/messages.h"

namespace chorus {

// For the worker of this world rank, after CONFIG: CONTACT goes out on `head`, WORLD answers it. Waits for the others
// for engine_start_timeout_ms at most.
Result<std::shared_ptr<Transport>> join_spread_world(Connection* head, const EngineStart& start, int world_rank);

}  // namespace chorus

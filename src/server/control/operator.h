// What an operator says to a fleet over the control socket, and what is answered. A request is a JSON object:
//
//   {"command": "list"}                      {"ok": true, "paused": false, "replicas": [..]}
//   {"command": "add"}                       {"ok": true, "rank": 2}
//   {"command": "drain", "rank": 1}          {"ok": true}; likewise resume, remove, restart
//   {"command": "pause"}                     {"ok": true}; likewise resume without a rank
//
// drain, remove and pause take "move" (true): what runs goes elsewhere, or waits; false: it ends where it is. The
// answer to a command says that it was taken; `list` tells what has become of it: of each replica {"rank", "state",
// "epoch", "pid", "requests", "running", "waiting", "kv_blocks_free", "kv_blocks_total", "deaths"}, the state as
// ReplicaCondition has it.
#pragma once

#include <string>
#include <string_view>

#include "fleet/host.h"

namespace chorus {

std::string answer_operator(FleetHost& host, std::string_view request);

}  // namespace chorus

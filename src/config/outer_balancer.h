// A server behind an external load balancer: it is one of several, each of which has its own port and some of the
// replicas, and balances among these only. Replicas keep the ranks that they have in the whole deployment: in
// logs, metrics, `chorus ctl` and X-data-parallel-rank. The options are vLLM's:
//
//   -dp N -dpn R            external: this server has the replica R
//   -dp N -dph -dpl L -dpr S  hybrid: this node has the replicas S to S + L - 1 behind one door
//   -dp N -dpm -dpl L -dpr S  multi-port external: the same, and a door for each of them
#pragma once

#include "base/result.h"
#include "config/engine_config.h"

namespace chorus {

// For `chorus serve`, before validate(): makes of what was given one mode or none, as vLLM does: --data-parallel-rank
// implies external, --data-parallel-start-rank without --headless hybrid; hybrid with one replica is external, with all
// of them no mode. Afterwards data_parallel_start_rank and data_parallel_size_local say which replicas are this
// server's. Errors: modes or values that exclude each other, or one that is missing.
Result<void> settle_outer_balancer(EngineConfig* config);

}  // namespace chorus

// A node without a front end (`chorus serve --headless`): its engines work for a fleet on another machine, the head.
// Weights are loaded once; each engine is a process of this node, watched and started again here, and has a connection
// to the head, over which its messages are relayed (protocol/messages.h). An engine's incarnation is one
// process and one connection: when either ends, so does the other, and the next begins with a new JOIN and a new epoch.
#pragma once

#include <functional>
#include <string>

#include "base/result.h"
#include "config/engine_config.h"
#include "config/model_config.h"
#include "fleet/fleet_setup.h"

namespace chorus {

struct RemoteNodeSetup {
  WeightLoader load_weights;
  std::function<bool()> interrupted;          // asked every 100 ms; true: everything ends, `cancelled`
  std::string engine_program = this_program;  // as FleetSetup's
};

// Runs the ranks of config.parallel that are local until the head ends them. Errors: the head does not take
// this node (invalid_argument, with the reason), or cannot be reached for engine_start_timeout_ms; an engine died five
// times in a row.
Result<void> run_remote_node(const EngineConfig& config, const ModelConfig& model, const RemoteNodeSetup& setup);
// With the model's own weights.
Result<void> run_remote_node(const EngineConfig& config, const ModelConfig& model,
                             const std::function<bool()>& interrupted);

}  // namespace chorus

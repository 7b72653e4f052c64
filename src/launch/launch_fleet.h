// A fleet of the replicas that a configuration asks for: on this machine, on other nodes, on Ray.
#pragma once

#include <functional>
#include <memory>

#include "fleet/fleet.h"
#include "fleet/fleet_setup.h"
#include "fleet/replica_source.h"

namespace chorus {

// Loads the weights once, spawns the engines of this node (config.parallel.local_replicas()), listens for the nodes
// that bring the others (remote_node.h), waits until each was READY once. On Ray all are such nodes, and Ray starts
// them (ray_launcher.h). Logs "Starting X data parallel workers" and "Worker rank X is ready". Fails when one dies
// before its first READY, with its last words; then nothing is left running. When `interrupted` says so (asked every
// 100 ms while engines start) it fails with `cancelled`.
Result<std::unique_ptr<Fleet>> launch_fleet(const EngineConfig& config, const ModelConfig& model,
                                            const std::function<bool()>& interrupted = {});

// What a host of such a fleet starts with (fleet/host.h): the sources of its replicas. Errors as above.
Result<FleetSetup> launch_setup(const EngineConfig& config, const ModelConfig& model,
                                const std::function<bool()>& interrupted = {});

// `config`: settled() for its model.
ReplicaSources sources_of(const EngineConfig& config);

}  // namespace chorus

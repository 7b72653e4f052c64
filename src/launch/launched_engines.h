// How the fleet in rank 0 of a launched world comes to talk to the engines, the first rank of each replica. Where all
// ranks are on one node rank 0 hands out socket pairs; else each engine connects to it over TCP under the cluster's key
// and says which one it is.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "config/engine_config.h"
#include "net/authentication.h"
#include "net/connection.h"
#include "parallel/group.h"
#include "parallel/store/store.h"

namespace chorus {

struct EngineConnections {
  std::vector<std::unique_ptr<Connection>> engines;  // in rank 0: the fleet's ends, by dp rank
  std::unique_ptr<Connection> fleet;                 // in an engine: its end
};

// On one node; every engine calls it. `store`: the same in all, no other key in it. Errors: deadline_exceeded (which
// ranks did not come within engine_start_timeout_ms).
Result<EngineConnections> hand_over_engine_sockets(const EngineConfig& config, int rank, Store& store);

// On several nodes; every rank of the world calls it. `address`: of this host, for the others. `key`: as in
// config.cluster_key_file. `check` is asked every second at least: whether the world is there still. Errors as above,
// and invalid_argument (another key).
Result<EngineConnections> connect_engines(const EngineConfig& config, Group* world, const std::string& address,
                                          const std::shared_ptr<const ClusterKey>& key,
                                          const std::function<Result<void>()>& check);

}  // namespace chorus

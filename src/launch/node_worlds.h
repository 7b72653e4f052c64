// Workers of one node that are in the same world with workers of other nodes share memory with each other. The node
// makes that memory, once per world, and hands it to each of its workers.
#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "base/result.h"
#include "config/engine_config.h"
#include "parallel/transport/transport.h"

namespace chorus {

// Not synchronised: the node's loop owns it.
class NodeWorlds {
 public:
  explicit NodeWorlds(const ParallelConfig& parallel) : parallel_(parallel) {}

  // The ranks of this replica's world that are on this node, ascending; in the world's own count.
  std::vector<int> members(int dp_rank) const;
  // The memory that they share: of world number `world` (WelcomeMessage) of this replica. -1: one alone needs none.
  // The memory of the world before goes with its last user.
  Result<int> descriptor(int dp_rank, std::uint64_t world);

 private:
  struct Present {
    std::uint64_t number = 0;
    SharedWorld memory;
  };
  ParallelConfig parallel_;
  std::map<int, Present> present_;  // by replica; replicas that step together have one, at 0
};

}  // namespace chorus

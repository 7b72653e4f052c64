// What each rank of a launched world may use of the node it is on. Some launchers bind each rank to its own cores,
// others leave all ranks on all cores: those that may use the same cores share them.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "config/engine_config.h"
#include "config/node.h"

namespace chorus {

// What a rank tells the others about where it is: bytes that can be copied.
struct Whereabouts {
  std::array<char, 192> node{};          // node_identity() of parallel/launch/rendezvous.h
  std::array<std::uint64_t, 64> cpus{};  // those it may use: a bit each
};
Whereabouts make_whereabouts(const std::string& node_identity, const NodeResources& node);

struct RankResources {
  int ranks_here = 1;  // on this rank's node, with it
  int threads = 1;
  std::vector<int> cpus;  // one per thread, or empty: not pinned
};
// `ranks`: of all, in their order; `node`: where `rank` is. Cores are shared with ranks on the same machine, in other
// containers too; a cgroup's limit with those on the same node. The sets of cpu_threads_bind are this node's, in rank
// order. Errors: invalid_argument (they do not fit).
Result<RankResources> share_node(const EngineConfig& config, const NodeResources& node,
                                 std::span<const Whereabouts> ranks, int rank);

}  // namespace chorus

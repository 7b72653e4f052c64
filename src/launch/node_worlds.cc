#include "launch/node_worlds.h"

#include <utility>

namespace chorus {

std::vector<int> NodeWorlds::members(int dp_rank) const {
  const bool together = parallel_.replicas_step_together();
  const int first = together ? parallel_.data_parallel_start_rank : dp_rank;
  const int last = together ? first + parallel_.local_replicas() : first + 1;
  std::vector<int> ranks;
  for (int replica = first; replica < last; ++replica) {
    for (int worker = 0; worker < parallel_.workers_per_node(); ++worker) {
      ranks.push_back((together ? replica : 0) * parallel_.replica_size() + parallel_.first_local_worker() + worker);
    }
  }
  return ranks;
}

Result<int> NodeWorlds::descriptor(int dp_rank, std::uint64_t world) {
  const std::size_t size = members(dp_rank).size();
  if (size == 1) return -1;
  const int key = parallel_.replicas_step_together() ? 0 : dp_rank;
  auto found = present_.find(key);
  if (found == present_.end() || found->second.number != world) {
    CHORUS_TRY(SharedWorld memory, SharedWorld::create(static_cast<int>(size)));
    found = present_.insert_or_assign(key, Present{world, std::move(memory)}).first;
  }
  return found->second.memory.fd();
}

}  // namespace chorus

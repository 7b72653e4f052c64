#include "exec/worker_groups.h"

#include "base/check.h"
#include "config/pipeline_partition.h"

namespace chorus {
namespace {

Group group_of(const std::shared_ptr<Transport>& transport, std::vector<int> world_ranks, int first_world_rank) {
  if (world_ranks.size() == 1) return Group::of_one();
  for (int& rank : world_ranks) rank -= first_world_rank;
  return Group(transport, std::move(world_ranks));
}

}  // namespace

WorkerGroups make_worker_groups(const Topology& topology, int rank, const std::shared_ptr<Transport>& transport,
                                int first_world_rank) {
  WorkerGroups groups;
  groups.at = topology.coordinates_of(rank);
  groups.pp_size = static_cast<int>(topology.pp_ranks(rank).size());
  groups.cp_size = static_cast<int>(topology.cp_ranks(rank).size());
  groups.tp_size = static_cast<int>(topology.tp_ranks(rank).size());
  groups.replica = group_of(transport, topology.replica_ranks(rank), first_world_rank);
  groups.tp = group_of(transport, topology.tp_ranks(rank), first_world_rank);
  groups.cp = group_of(transport, topology.cp_ranks(rank), first_world_rank);
  groups.pp = group_of(transport, topology.pp_ranks(rank), first_world_rank);
  return groups;
}

std::string worker_name(const Topology& topology, int rank) {
  const Coordinates at = topology.coordinates_of(rank);
  const std::string cp = topology.cp_ranks(rank).size() > 1 ? fmt::format(" cp={}", at.cp) : "";
  return fmt::format("dp={} pp={}{} tp={}", at.dp, at.pp, cp, at.tp);
}

int weight_shards(const ParallelConfig& parallel) {
  return parallel.pipeline_parallel_size * parallel.tensor_parallel_size;
}

int weight_shard_of(const ParallelConfig& parallel, const Coordinates& at) {
  return at.pp * parallel.tensor_parallel_size + at.tp;
}

ModelShard model_shard(const ModelConfig& model, const ParallelConfig& parallel, int shard) {
  const int stage = shard / parallel.tensor_parallel_size;
  const auto layers = pipeline_partition(model.num_hidden_layers, parallel.pipeline_parallel_size, parallel.pipeline_layer_partition);
  CHECK(layers.ok(), "the partition was validated before: {}", layers.error().message);
  ModelShard part;
  part.tp = {shard % parallel.tensor_parallel_size, parallel.tensor_parallel_size};
  for (int i = 0; i < stage; ++i) part.first_layer += (*layers)[static_cast<std::size_t>(i)];
  part.last_layer = part.first_layer + (*layers)[static_cast<std::size_t>(stage)];
  part.first_stage = stage == 0;
  part.last_stage = stage + 1 == parallel.pipeline_parallel_size;
  return part;
}

}  // namespace chorus

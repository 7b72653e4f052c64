#include "exec/worker_groups.h"

#include <algorithm>

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

WorkerGroups make_worker_groups(const ParallelConfig& parallel, int rank, const std::shared_ptr<Transport>& transport,
                                int first_world_rank) {
  const auto topology = Topology::create(parallel, parallel.world_size());
  CHECK(topology.ok(), "{}", topology.error().message);
  const auto group = [&](std::vector<int> world_ranks) {
    return group_of(transport, std::move(world_ranks), first_world_rank);
  };
  WorkerGroups groups;
  groups.at = topology->coordinates_of(rank);
  groups.pp_size = parallel.pipeline_parallel_size;
  groups.cp_size = parallel.decode_context_parallel_size;
  groups.tp_size = parallel.tensor_parallel_size;
  groups.replica = group(topology->replica_ranks(rank));
  groups.tp = group(topology->tp_ranks(rank));
  groups.cp = group(topology->cp_ranks(rank));
  groups.pp = group(topology->pp_ranks(rank));
  if (parallel.expert_parallel_size() > 1) groups.ep = group(topology->ep_ranks(rank));
  if (parallel.replicas_step_together()) groups.dp = group(topology->dp_ranks(rank));
  return groups;
}

std::string worker_name(const Topology& topology, int rank) {
  const Coordinates at = topology.coordinates_of(rank);
  const std::string cp = topology.cp_ranks(rank).size() > 1 ? fmt::format(" cp={}", at.cp) : "";
  return fmt::format("dp={} pp={}{} tp={}", at.dp, at.pp, cp, at.tp);
}

namespace {

int shards_a_stage(const ParallelConfig& parallel) {
  return std::max(parallel.tensor_parallel_size, parallel.expert_parallel_size());
}

}  // namespace

int weight_shards(const ParallelConfig& parallel) {
  return parallel.pipeline_parallel_size * shards_a_stage(parallel);
}

int weight_shard_of(const ParallelConfig& parallel, const Coordinates& at) {
  const int in_stage = parallel.expert_parallel_size() > 1 ? at.dp * parallel.tensor_parallel_size + at.tp : at.tp;
  return at.pp * shards_a_stage(parallel) + in_stage;
}

ModelShard model_shard(const ModelConfig& model, const ParallelConfig& parallel, int shard, ExpertSlots* slots) {
  const int stage = shard / shards_a_stage(parallel), in_stage = shard % shards_a_stage(parallel);
  const auto layers =
      pipeline_partition(model.num_hidden_layers, parallel.pipeline_parallel_size, parallel.pipeline_layer_partition);
  CHECK(layers.ok(), "the partition was validated before: {}", layers.error().message);
  ModelShard part;
  part.tp = {in_stage % parallel.tensor_parallel_size, parallel.tensor_parallel_size};
  if (parallel.expert_parallel_size() > 1) {
    part.ep = {in_stage, parallel.expert_parallel_size(), ExpertPlacementStrategy::linear, slots};
  }
  for (int i = 0; i < stage; ++i) part.first_layer += (*layers)[static_cast<std::size_t>(i)];
  part.last_layer = part.first_layer + (*layers)[static_cast<std::size_t>(stage)];
  part.first_stage = stage == 0;
  part.last_stage = stage + 1 == parallel.pipeline_parallel_size;
  return part;
}

}  // namespace chorus

// Where a worker stands in its replica, and the groups it computes with.
#pragma once

#include <memory>
#include <string>

#include "models/decoder.h"
#include "parallel/group.h"
#include "parallel/topology.h"

namespace chorus {

struct WorkerGroups {
  Coordinates at;
  int pp_size = 1, cp_size = 1, tp_size = 1;
  // All workers of the replica, in the order pp, cp, tp with tp fastest; rank 0 is the engine.
  Group replica = Group::of_one();
  // The workers that differ from this one in one coordinate.
  Group tp = Group::of_one(), cp = Group::of_one(), pp = Group::of_one();
  // With expert parallelism: all that share the experts of this stage; and the same worker of every replica.
  Group ep = Group::of_one(), dp = Group::of_one();

  bool first_stage() const { return at.pp == 0; }
  bool last_stage() const { return at.pp == pp_size - 1; }
  // The one worker that answers: the tensor-parallel ranks of its stage sample side by side and give it their
  // results. Its rank in `replica` is output_rank().
  bool is_output() const { return last_stage() && at.cp == 0 && at.tp == 0; }
  int output_rank() const { return (pp_size - 1) * cp_size * tp_size; }
};

// `rank`: of the whole world. `transport` joins the world ranks from `first_world_rank` on, in order: those of this
// replica, or of all where replicas step together; null for a replica of one.
WorkerGroups make_worker_groups(const ParallelConfig& parallel, int rank, const std::shared_ptr<Transport>& transport,
                                int first_world_rank);

// "dp=0 pp=0 tp=1": what tells workers apart in `ps` and in messages; cp is named where there is more than one.
std::string worker_name(const Topology& topology, int rank);

// Weights are packed once for each part of the model that differs: workers that differ in dp or cp alone share theirs,
// unless the experts are spread over dp. How many parts there are, and which one is this worker's.
int weight_shards(const ParallelConfig& parallel);
int weight_shard_of(const ParallelConfig& parallel, const Coordinates& at);
// The part of the model of a shard. `slots`: where the experts are declared that move while serving; null: with the
// other weights.
ModelShard model_shard(const ModelConfig& model, const ParallelConfig& parallel, int shard, ExpertSlots* slots);

}  // namespace chorus

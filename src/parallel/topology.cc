#include "parallel/topology.h"

namespace chorus {

Result<Topology> Topology::create(const ParallelConfig& parallel, int world_size) {
  const int wanted = parallel.world_size();
  if (wanted != world_size) {
    return fail(
        ErrorCode::invalid_argument,
        "dp {} x tp {} x pp {} x cp {} = {} ranks, but the world has {}: change a size or the number of processes",
        parallel.data_parallel_size, parallel.tensor_parallel_size, parallel.pipeline_parallel_size,
        parallel.decode_context_parallel_size, wanted, world_size);
  }
  return Topology(parallel.data_parallel_size, parallel.pipeline_parallel_size, parallel.decode_context_parallel_size,
                  parallel.tensor_parallel_size);
}

Coordinates Topology::coordinates_of(int rank) const {
  Coordinates at;
  at.tp = rank % tp_;
  at.cp = rank / tp_ % cp_;
  at.pp = rank / (tp_ * cp_) % pp_;
  at.dp = rank / (tp_ * cp_ * pp_);
  return at;
}

int Topology::rank_of(const Coordinates& at) const {
  return ((at.dp * pp_ + at.pp) * cp_ + at.cp) * tp_ + at.tp;
}

std::vector<int> Topology::tp_ranks(int rank) const {
  std::vector<int> ranks;
  Coordinates at = coordinates_of(rank);
  for (at.tp = 0; at.tp < tp_; ++at.tp) ranks.push_back(rank_of(at));
  return ranks;
}

std::vector<int> Topology::pp_ranks(int rank) const {
  std::vector<int> ranks;
  Coordinates at = coordinates_of(rank);
  for (at.pp = 0; at.pp < pp_; ++at.pp) ranks.push_back(rank_of(at));
  return ranks;
}

std::vector<int> Topology::dp_ranks(int rank) const {
  std::vector<int> ranks;
  Coordinates at = coordinates_of(rank);
  for (at.dp = 0; at.dp < dp_; ++at.dp) ranks.push_back(rank_of(at));
  return ranks;
}

std::vector<int> Topology::cp_ranks(int rank) const {
  std::vector<int> ranks;
  Coordinates at = coordinates_of(rank);
  for (at.cp = 0; at.cp < cp_; ++at.cp) ranks.push_back(rank_of(at));
  return ranks;
}

std::vector<int> Topology::replica_ranks(int rank) const {
  const int size = pp_ * cp_ * tp_;
  std::vector<int> ranks;
  for (int i = 0; i < size; ++i) ranks.push_back(rank / size * size + i);
  return ranks;
}

std::vector<int> Topology::ep_ranks(int rank) const {
  std::vector<int> ranks;
  Coordinates at = coordinates_of(rank);
  for (at.dp = 0; at.dp < dp_; ++at.dp) {
    for (at.tp = 0; at.tp < tp_; ++at.tp) ranks.push_back(rank_of(at));
  }
  return ranks;
}

}  // namespace chorus

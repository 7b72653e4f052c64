#include "fleet/spawned_replicas.h"

#include <algorithm>

#include "base/log.h"
#include "config/node.h"
#include "fleet/fleet_setup.h"

namespace chorus {

bool SpawnedReplicas::brings(int rank) const {
  return parallel_.is_local(rank) || added_.contains(rank);
}

// It gets the cores of one that was removed; while there is none it is not bound.
void SpawnedReplicas::add(int rank) {
  int cores_of = -1;
  for (int other = 0; other < rank && cores_of < 0; ++other) {
    const auto taken = [&](const auto& one) {
      return one.second == other && host_->state(one.first) != ReplicaState::removed;
    };
    const bool free = parallel_.is_local(other) && host_->state(other) == ReplicaState::removed;
    if (free && std::ranges::none_of(added_, taken)) cores_of = other;
  }
  added_[rank] = cores_of;
}

Result<void> SpawnedReplicas::prepare(const FleetSetup& setup, const ModelConfig&, EngineConfig* config) {
  parallel_ = config->parallel;
  engine_program_ = setup.engine_program;
  std::vector<std::string> warnings;
  CHORUS_TRY(cpu_sets_, cpu_sets_per_worker(*config, detect_node(), &warnings));
  for (const std::string& warning : warnings) log(LogLevel::warning, "{}", warning);
  return {};
}

void SpawnedReplicas::open(SourceHost* host, const EngineConfig&, const ModelConfig&, const LoadedWeights& weights) {
  host_ = host;
  weights_fd_ = weights.arena.fd();
}

Result<ReplicaLink> SpawnedReplicas::begin(Placement replica, std::uint64_t world) {
  if (world != world_number_) world_.reset();
  if (world > 0 && !world_) {
    CHORUS_TRY(world_, SharedWorld::create(parallel_.world_size()));
  }
  world_number_ = world;
  return ReplicaLink::start(replica, engine_program_);
}

void SpawnedReplicas::configure(ReplicaLink* engine) {
  EngineStart start = host_->engine_start(engine->replica());
  const int workers = parallel_.replica_size();
  const auto added = added_.find(start.dp_rank);
  const int cores_of = added == added_.end() ? start.dp_rank - parallel_.data_parallel_start_rank : added->second;
  for (int worker = 0; worker < workers && !cpu_sets_.empty(); ++worker) {
    const int set = cores_of * workers + worker;
    start.worker_cpus.push_back(set < 0 ? std::vector<int>() : cpu_sets_[static_cast<std::size_t>(set)]);
  }
  start.shows_progress = engine->progress_memory().progress().watched();
  engine->post(MessageType::config, encode(start), weights_fd_);
  if (start.shows_progress) engine->post(MessageType::progress, {}, engine->progress_memory().fd());
  if (world_) engine->post(MessageType::world, encode(WorldMessage{}), world_->fd());
}

}  // namespace chorus

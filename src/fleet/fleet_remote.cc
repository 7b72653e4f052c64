// Replicas that other machines bring. Such a rank is the supervisor's from the moment its node joins until its
// connection breaks; to bring it back is the node's business, so it is never started again from here.
#include <algorithm>
#include <utility>

#include "base/log.h"
#include "fleet/fleet_impl.h"
#include "worker/cluster_fingerprint.h"

namespace chorus {
namespace {

constexpr Nanoseconds log_interval = 10'000'000'000;

}  // namespace

Result<void> FleetImpl::listen_for_nodes() {
  if (!config_.parallel.several_nodes()) return {};
  own_replicas_ = config_.parallel.local_replicas();
  // Of workers that join singly this machine's come as another node's do.
  config_.parallel.all_remote = config_.parallel.all_remote || config_.parallel.workers_join_singly();
  CHORUS_TRY(remote_, RemoteReplicas::listen(config_));
  joined_.resize(links_.size() * static_cast<std::size_t>(workers_that_join()));
  if (config_.parallel.workers_join_singly()) contacts_.resize(static_cast<std::size_t>(config_.parallel.world_size()));
  return {};
}

void FleetImpl::start_remote_ranks() {
  if (!remote_) return;
  remote_->set_fingerprint(cluster_fingerprint(config_, model_, weights_));
  const Nanoseconds now = monotonic_now();
  missing_deadline_ = now + limits_.start_timeout;
  missing_log_at_ = now + log_interval;
  log(LogLevel::info, "Waiting for ranks {} of other nodes at {}",
      ranks_that([&](int rank) { return is_remote(rank); }), remote_->address().text());
}

// While the fleet starts: who is missing, now and then, and at last as an error.
Result<void> FleetImpl::check_missing_nodes() {
  if (!remote_) return {};
  const Nanoseconds now = monotonic_now();
  // A start's time begins when this machine's weights are there.
  if (own_node_ && !own_node_->loaded()) missing_deadline_ = now + limits_.start_timeout;
  if (now < missing_log_at_ && now < missing_deadline_) return {};
  const auto missing = [&](int rank) { return is_remote(rank) && !was_ready_[static_cast<std::size_t>(rank)]; };
  const std::string ranks = ranks_that(missing);
  if (ranks.empty()) return {};
  if (now < missing_deadline_) {
    missing_log_at_ = now + log_interval;
    if (ray_) {
      log(LogLevel::warning, "Ranks {} are missing: {}", ranks, missing_on_ray());
      return {};
    }
    log(LogLevel::warning,
        "Ranks {} are missing{}: start their nodes with chorus serve --headless and --data-parallel-rpc-port {}", ranks,
        missing_workers(), remote_->address().port());
    return {};
  }
  const std::string& refused = remote_->last_refusal();
  return with_deaths(
      fail(ErrorCode::deadline_exceeded, "ranks {} did not come within {} ms (--engine-start-timeout-ms){}{}{}", ranks,
           limits_.start_timeout / 1'000'000, missing_workers(), ray_ ? ": " + missing_on_ray() : "",
           refused.empty() ? "" : "; the last connection that was refused: " + refused),
      true);
}

void FleetImpl::welcome_nodes() {
  if (!remote_) return;
  watch_joined();
  const auto objection = [&](int rank, int worker) -> std::string {
    const ReplicaState state = coordinator_.state(rank);
    const bool free = state == ReplicaState::stopped || state == ReplicaState::given_up;
    if (free && !joined(rank, worker)) return {};
    return free ? fmt::format("worker {} of rank {} is there already", worker, rank)
                : fmt::format("rank {} is there already", rank);
  };
  for (RemoteReplicas::Joined& comer : remote_->take(monotonic_now(), objection)) {
    log(LogLevel::info, "Node {} brings worker rank {}{}", comer.node, comer.rank,
        workers_that_join() > 1 ? fmt::format(" worker {}", comer.worker) : "");
    joined(comer.rank, comer.worker) = std::move(comer.connection);
    begin_if_complete(comer.rank);
  }
  act();
}

// A node that has lost its engine or its way brings it back within the time a start may take.
void FleetImpl::log_waiting_for_nodes() {
  if (std::exchange(waits_for_nodes_, coordinator_.waits_for_nodes()) || !waits_for_nodes_) return;
  log(LogLevel::warning, "No replica is left; waiting {} ms for a node to come back",
      limits_.start_timeout / 1'000'000);
}

}  // namespace chorus

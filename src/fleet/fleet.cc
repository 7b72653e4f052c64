#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "base/log.h"
#include "cluster/balance/load_balancer.h"
#include "config/node.h"
#include "fleet/fleet_impl.h"
#include "worker/child_start.h"
#include "worker/engine_process.h"

namespace chorus {
namespace {

constexpr int shutdown_timeout_ms = 2'000;
constexpr int start_slice_ms = 100;  // an interrupt waits no longer than this
// A prompt that would not fit in a frame (4 bytes a token, the rest is small beside it).
constexpr std::size_t prompt_tokens_max = frame_payload_bytes_max / 8;

DispatcherConfig dispatcher_config(const EngineConfig& config, ClientId client) {
  DispatcherConfig dispatcher;
  dispatcher.client = client;
  dispatcher.by_priority = config.scheduling_policy == SchedulingPolicy::priority;
  dispatcher.limits.prompt_tokens_max = prompt_tokens_max;
  dispatcher.limits.sequences_per_replica_max = 2 * static_cast<std::uint32_t>(config.max_num_seqs);
  return dispatcher;
}

CoordinatorConfig coordinator_config(const EngineConfig& config, const SupervisorLimits& limits) {
  CoordinatorConfig coordinator;
  coordinator.supervisor = limits;
  coordinator.step_together = config.parallel.replicas_step_together();
  coordinator.rejoin_timeout = limits.start_timeout;
  return coordinator;
}

double seconds_since(Nanoseconds begin) {
  return static_cast<double>(monotonic_now() - begin) * 1e-9;
}

}  // namespace

FleetImpl::FleetImpl(const EngineConfig& config, const ModelConfig& model, const SupervisorLimits& limits)
    : config_(settled(config, model)),
      model_(model),
      ranks_(config.parallel.data_parallel_size),
      limits_(limits),
      dispatcher_(dispatcher_config(config, client_), make_load_balancer(config.load_balancer)),
      coordinator_(coordinator_config(config, limits)),
      links_(static_cast<std::size_t>(ranks_)),
      loads_(static_cast<std::size_t>(ranks_)),
      last_deaths_(static_cast<std::size_t>(ranks_)),
      was_ready_(static_cast<std::size_t>(ranks_), false),
      starts_left_(ranks_),
      worlds_of_(static_cast<std::size_t>(ranks_), 0) {
  followers_.resize(links_.size());
  coordinator_.client_joined(client_);
}

Result<void> FleetImpl::start(FleetSetup setup) {
  const Nanoseconds begin = monotonic_now();
  const NodeResources node = detect_node();
  connected_ = std::move(setup.connected);
  CHECK(connected_.size() <= links_.size(), "{} connected engines for {} ranks", connected_.size(), ranks_);
  connected_.resize(links_.size());
  CHORUS_TRY_VOID(start_ray(setup.interrupted));
  threads_ = threads_per_worker(config_, node);
  std::vector<std::string> warnings;
  // Engines that are there already live on resources of their own.
  if (!std::ranges::all_of(connected_, [](const auto& connection) { return connection != nullptr; })) {
    CHORUS_TRY(cpu_sets_, cpu_sets_per_worker(config_, node, &warnings));
  }
  for (const std::string& warning : warnings) log(LogLevel::warning, "{}", warning);
  if (!ray_) CHORUS_TRY_VOID(listen_for_nodes());
  start_own_node(setup);
  CHORUS_TRY(weights_, setup.load_weights(config_, model_, local_weight_shards(config_.parallel), node.cores(),
                                          setup.interrupted));
  times_.load_s = seconds_since(begin);
  times_.weight_bytes = weights_.arena.size();
  times_.profile = numerics_profile(weights_);
  CHORUS_TRY(kv_cache_bytes_, kv_cache_bytes_per_worker(config_, detect_node(), 0));

  log(LogLevel::info, "Starting {} data parallel workers", ray_ ? ranks_ : remote_ ? own_replicas_ : ranks_);
  start_remote_ranks();
  for (int rank = 0; rank < ranks_; ++rank) {
    const ReplicaOrigin origin = is_remote(rank)                              ? ReplicaOrigin::joins
                                 : connected_[static_cast<std::size_t>(rank)] ? ReplicaOrigin::connected
                                                                              : ReplicaOrigin::spawned;
    const auto added = coordinator_.add_replica(origin, monotonic_now());
    CHECK(added.ok() && *added == rank, "rank {}", rank);
  }
  // The supervisor's start deadline ends this loop. A death before a rank's first READY fails the start: retrying would
  // hide why. One that was READY and dies while others still start is a death like any later one.
  while (starts_left_ > 0 && !start_failed_) {
    if (setup.interrupted && setup.interrupted()) return fail(ErrorCode::cancelled, "interrupted");
    turn(start_slice_ms);
    CHORUS_TRY_VOID(check_missing_nodes());
    if (!ray_end_.empty()) return fail(ErrorCode::unavailable, "{}", ray_end_);
    if (own_node_ && own_node_->failure() != nullptr) {
      turn(0);  // what its workers said before it
      return with_deaths(*own_node_->failure(), true);
    }
  }
  if (start_failed_) return start_error();
  times_.ready_s = seconds_since(begin);
  return {};
}

FleetImpl::~FleetImpl() {
  for (auto& link : links_) {
    if (!link) continue;
    // One that is not ready is loading and would not listen: it has nothing to end in order either.
    if (!is_ready(link->replica().rank)) link->process().kill();
    link->post(MessageType::shutdown, {});
    // TCP throws away what was sent last where something that was received is left unread.
    for (auto frame = link->receive(); link->adopted() && frame.ok() && frame->has_value();) frame = link->receive();
    // Its end of the socket tells the same to one that does not get to reading.
    link->disconnect();
    for (ReplicaLink& follower : followers(link->replica().rank)) {
      follower.post(MessageType::shutdown, {});
      for (auto frame = follower.receive(); frame.ok() && frame->has_value();) frame = follower.receive();
      follower.disconnect();
    }
  }
  for (auto& waiting : joined_) {
    if (waiting) (void)send_message(waiting.get(), MessageType::shutdown, 0, {}).ok();
  }
  joined_.clear();
  remote_.reset();
  const Nanoseconds deadline = monotonic_now() + Nanoseconds{shutdown_timeout_ms} * 1'000'000;
  for (auto& link : links_) {
    if (link) link->process().reap(wait_ms(deadline));
  }
  // ~ChildProcess kills and reaps what is left; all first, so that they end side by side.
  for (auto& link : links_) {
    if (link) link->process().kill();
  }
  ray_.reset();  // its ranks' nodes have been told to end by now
  own_node_.reset();
}

Result<RequestId> FleetImpl::submit(Request request, std::optional<int> dp_rank) {
  if (dp_rank && (*dp_rank < 0 || *dp_rank >= ranks_)) {
    return fail(ErrorCode::invalid_argument, "no data parallel rank {}: there are {}", *dp_rank, ranks_);
  }
  CHORUS_TRY(const RequestId id, dispatcher_.submit(std::move(request), dp_rank));
  act();
  return id;
}

void FleetImpl::abort(RequestId request) {
  dispatcher_.abort(request);
  act();
}

void FleetImpl::abort_choice(RequestId request, std::uint32_t choice) {
  dispatcher_.abort_choice(request, choice);
  act();
}

Result<void> FleetImpl::poll(int timeout_ms, std::vector<FleetEvent>* events) {
  const Nanoseconds deadline = monotonic_now() + Nanoseconds{timeout_ms} * 1'000'000;
  do {
    if (is_over()) break;
    turn(dispatcher_.has_events() ? 0 : wait_ms(deadline));
  } while (!dispatcher_.has_events() && monotonic_now() < deadline);
  // What came before the end is still the caller's.
  if (!dispatcher_.has_events() && is_over()) return all_dead();
  for (DispatcherEvent& event : dispatcher_.take_events()) events->push_back({std::move(event.event), event.replica});
  return {};
}

std::vector<ReplicaStatus> FleetImpl::replicas() const {
  std::vector<ReplicaStatus> status;
  for (int rank = 0; rank < ranks_; ++rank) {
    const auto& link = links_[static_cast<std::size_t>(rank)];
    status.push_back({rank, is_ready(rank), link ? link->present_pid() : 0, dispatcher_.ledger().requests_on(rank),
                      loads_[static_cast<std::size_t>(rank)]});
  }
  return status;
}

int FleetImpl::wait_ms(Nanoseconds deadline) const {
  const Nanoseconds left = deadline - monotonic_now();
  return left <= 0 ? 0 : static_cast<int>((left + 999'999) / 1'000'000);
}

// Waits once, takes what came, then looks at the clock: a caller that was away for long finds the heartbeats that came
// meanwhile before anyone is declared dead.
void FleetImpl::turn(int timeout_ms) {
  act();
  check_sending();
  if (const auto deadline = coordinator_.next_deadline()) timeout_ms = std::min(timeout_ms, wait_ms(*deadline));
  std::vector<pollfd> items;
  std::vector<int> ranks;
  for (int rank = 0; rank < ranks_; ++rank) {
    const auto& replica = link(rank);
    if (!replica) continue;
    if (works(rank))
      timeout_ms = std::min(timeout_ms, wait_ms(monotonic_now() + replica->hang_watch.limits().look_interval));
    const auto wanted = static_cast<short>(replica->wants_to_write() ? POLLIN | POLLOUT : POLLIN);
    items.push_back({replica->socket(), wanted, 0});  // a negative descriptor is skipped by poll(2)
    items.push_back({replica->process().pidfd(), POLLIN, 0});
    ranks.push_back(rank);
  }
  if (remote_) {
    remote_->append_descriptors(&items);
    if (const auto deadline = remote_->next_deadline()) timeout_ms = std::min(timeout_ms, wait_ms(*deadline));
  }
  if (ray_) items.push_back({ray_->descriptor(), POLLIN, 0});
  append_singly_joined(&items);
  const int ready = ::poll(items.data(), items.size(), timeout_ms);
  CHECK(ready >= 0 || errno == EINTR, "poll: {}", std::strerror(errno));
  for (std::size_t i = 0; ready > 0 && i < ranks.size(); ++i) {
    if ((items[2 * i].revents & POLLOUT) != 0 && link(ranks[i])) link(ranks[i])->pump();
    if ((items[2 * i].revents & ~POLLOUT) != 0) read_from(ranks[i]);
    if (items[2 * i + 1].revents != 0) check_exit(ranks[i], 0);
  }
  read_followers();
  hear_ray();
  welcome_nodes();
  watch_progress();
  // With events left unread nobody's silence means anything.
  if (dispatcher_.has_room_for_events()) coordinator_.tick(monotonic_now());
  act();
  log_waiting_for_nodes();
}

SupervisorLimits supervisor_limits(const EngineConfig& config) {
  SupervisorLimits limits;
  limits.start_timeout = Nanoseconds{config.engine_start_timeout_ms} * 1'000'000;
  limits.heartbeat_timeout = Nanoseconds{config.engine_heartbeat_timeout_ms} * 1'000'000;
  limits.restarts_max = static_cast<std::uint32_t>(config.engine_restarts_max);
  return limits;
}

Result<std::unique_ptr<Fleet>> start_fleet(const EngineConfig& config, const ModelConfig& model, FleetSetup setup) {
  auto fleet = std::make_unique<FleetImpl>(config, model, setup.supervisor);
  CHORUS_TRY_VOID(fleet->start(std::move(setup)));
  return std::unique_ptr<Fleet>(std::move(fleet));
}

}  // namespace chorus

#include "fleet/host.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "base/log.h"
#include "config/node.h"
#include "exec/kv_capacity.h"
#include "fleet/spawned_replicas.h"
#include "worker/engine_process.h"

namespace chorus {
namespace {

constexpr int shutdown_timeout_ms = 2'000;
constexpr int start_slice_ms = 100;  // an interrupt waits no longer than this

CoordinatorConfig coordinator_config(const EngineConfig& config, const SupervisorLimits& limits) {
  CoordinatorConfig coordinator;
  coordinator.supervisor = limits;
  coordinator.step_together = config.parallel.replicas_step_together();
  coordinator.first_replica = config.parallel.fleet_begin();
  coordinator.rejoin_timeout = limits.start_timeout;
  return coordinator;
}

double seconds_since(Nanoseconds begin) {
  return static_cast<double>(monotonic_now() - begin) * 1e-9;
}

}  // namespace

FleetHost::FleetHost(const EngineConfig& config, const ModelConfig& model, const SupervisorLimits& limits,
                     FleetClient* client)
    : config_(config),
      model_(model),
      limits_(limits),
      client_(client),
      coordinator_(coordinator_config(config, limits)),
      ranks_(static_cast<std::size_t>(config.parallel.fleet_end())),
      starts_left_(config.parallel.fleet_end() - config.parallel.fleet_begin()) {
  if (client != nullptr) coordinator_.client_joined(client->id());
}

Result<void> FleetHost::start(FleetSetup setup) {
  const Nanoseconds begin = monotonic_now();
  CHORUS_TRY_VOID(prepare(&setup));
  const NodeResources node = detect_node();
  threads_ = threads_per_worker(config_, node);
  CHORUS_TRY(weights_, setup.load_weights(config_, model_, local_weight_shards(config_.parallel), node.cores(),
                                          setup.interrupted));
  times_.load_s = seconds_since(begin);
  times_.weight_bytes = weights_.arena.size();
  times_.profile = numerics_profile(weights_, config_);
  CHORUS_TRY(kv_cache_bytes_, kv_cache_bytes_per_worker(config_, detect_node(), 0));
  add_replicas();
  CHORUS_TRY_VOID(wait_for_all(setup.interrupted));
  times_.ready_s = seconds_since(begin);
  return {};
}

Result<void> FleetHost::prepare(FleetSetup* setup) {
  sources_ = std::move(setup->sources);
  prefix_key_ = setup->prefix_key;
  if (sources_.empty()) sources_.push_back(std::make_unique<SpawnedReplicas>());
  for (const auto& source : sources_) CHORUS_TRY_VOID(source->prepare(*setup, model_, &config_));
  for (int rank = first_rank(); rank < ranks(); ++rank) {
    const auto source = std::ranges::find_if(sources_, [&](const auto& one) { return one->brings(rank); });
    CHECK(source != sources_.end(), "no source brings rank {}", rank);
    at(rank).source = source->get();
  }
  return {};
}

void FleetHost::tell_what_is_loaded() const {
  if (times_.weight_bytes > 0) {
    log(LogLevel::info, "Loaded {:.1f} MiB of weights in {:.2f} s", static_cast<double>(times_.weight_bytes) / 0x1p20,
        times_.load_s);
  }
  const auto capacity = kv_capacity(config_, model_, kv_cache_bytes_);
  if (!capacity.ok()) return;
  log(LogLevel::info, "KV cache: {:.1f} MiB per worker, {} tokens per replica: room for {:.1f} requests of {} tokens",
      static_cast<double>(kv_cache_bytes_) / 0x1p20, capacity->tokens, capacity->longest_requests,
      longest_request(config_, model_));
}

void FleetHost::add_replicas() {
  int starting = 0;
  for (int rank = first_rank(); rank < ranks(); ++rank) starting += at(rank).source->starts(rank) ? 1 : 0;
  log(LogLevel::info, "Starting {} data parallel workers", starting);
  for (const auto& source : sources_) source->open(this, config_, model_, weights_);
  for (int rank = first_rank(); rank < ranks(); ++rank) {
    const auto added = coordinator_.add_replica(at(rank).source->origin(), monotonic_now());
    CHECK(added.ok() && *added == rank, "rank {}", rank);
  }
}

// The supervisor's start deadline ends this loop. A death before a rank's first READY fails the start: retrying would
// hide why. One that was READY and dies while others still start is a death like any later one.
Result<void> FleetHost::wait_for_all(const std::function<bool()>& interrupted) {
  while (starts_left_ > 0 && !start_failed_) {
    if (interrupted && interrupted()) return fail(ErrorCode::cancelled, "interrupted");
    turn(start_slice_ms);
    for (const auto& source : sources_) {
      const Result<void> starting = source->check_start(monotonic_now());
      if (starting.ok()) continue;
      turn(0);  // what its workers said before it
      return with_deaths(starting.error(), true);
    }
  }
  if (start_failed_) return start_error();
  return {};
}

FleetHost::~FleetHost() {
  for (Rank& rank : ranks_) {
    auto& link = rank.link;
    if (!link) continue;
    // One that is not ready is loading and would not listen: it has nothing to finish either.
    if (!is_ready(link->replica().rank)) link->process().kill();
    link->post(MessageType::shutdown, {});
    // TCP throws away what was sent last where something that was received is left unread.
    for (auto frame = link->receive(); link->adopted() && frame.ok() && frame->has_value();) frame = link->receive();
    // Its end of the socket tells the same to one that does not get to reading.
    link->disconnect();
  }
  for (const auto& source : sources_) source->shut_down();
  const Nanoseconds deadline = monotonic_now() + Nanoseconds{shutdown_timeout_ms} * 1'000'000;
  for (Rank& rank : ranks_) {
    if (rank.link) rank.link->process().reap(milliseconds_until(deadline));
  }
  // ~ChildProcess kills and reaps what is left; all first, so that they end side by side.
  for (Rank& rank : ranks_) {
    if (rank.link) rank.link->process().kill();
  }
}

std::vector<ReplicaStatus> FleetHost::replicas() const {
  std::vector<ReplicaStatus> status;
  for (int rank = first_rank(); rank < ranks(); ++rank) {
    const auto& link = at(rank).link;
    ReplicaStatus& one = status.emplace_back();
    one.dp_rank = rank;
    one.alive = is_ready(rank);
    one.condition = condition_of(rank);
    one.epoch = rank < coordinator_.replicas() ? coordinator_.epoch(rank) : 0;
    one.pid = link ? link->present_pid() : 0;
    one.in_flight = requests_on(rank);
    one.load = at(rank).load;
    one.deaths = at(rank).deaths;
  }
  return status;
}

bool FleetHost::any_ready() const {
  for (int rank = 0; rank < ranks(); ++rank) {
    if (is_ready(rank)) return true;
  }
  return false;
}

// Two items for each rank of `polled`, then those of the sources. Returns how long poll(2) may wait.
int FleetHost::append_descriptors(std::vector<pollfd>* items, std::vector<int>* polled, int timeout_ms) {
  const auto until = [&](Nanoseconds deadline) { timeout_ms = std::min(timeout_ms, milliseconds_until(deadline)); };
  if (const auto deadline = coordinator_.next_deadline()) until(*deadline);
  for (int rank = 0; rank < ranks(); ++rank) {
    const auto& replica = at(rank).link;
    if (!replica) continue;
    if (works(rank)) until(monotonic_now() + replica->hang_watch.limits().look_interval);
    if (replica->closed) until(replica->closed->exits_until);
    items->push_back(replica->poll_item());
    items->push_back({replica->process().pidfd(), POLLIN, 0});
    polled->push_back(rank);
  }
  for (const auto& source : sources_) {
    source->append_descriptors(items);
    if (const auto deadline = source->next_deadline()) until(*deadline);
  }
  for (const auto& client : clients_) client->append_descriptors(items);
  return timeout_ms;
}

FleetWait FleetHost::wait() {
  constexpr int wait_ms_max = 1'000;
  act();
  std::vector<pollfd> items;
  std::vector<int> polled;
  const int timeout_ms = append_descriptors(&items, &polled, wait_ms_max);
  waited_for_.update(items);
  return {waited_for_.fd(), timeout_ms};
}

// Waits once, takes what came, then looks at the clock: a caller that was away for long finds the heartbeats that came
// meanwhile before anyone is declared dead.
void FleetHost::turn(int timeout_ms) {
  act();
  check_sending();
  std::vector<pollfd> items;
  std::vector<int> polled;
  timeout_ms = append_descriptors(&items, &polled, timeout_ms);
  const int ready = ::poll(items.data(), items.size(), timeout_ms);
  CHECK(ready >= 0 || errno == EINTR, "poll: {}", std::strerror(errno));
  for (std::size_t i = 0; ready > 0 && i < polled.size(); ++i) {
    auto& replica = at(polled[i]).link;
    if ((items[2 * i].revents & POLLOUT) != 0 && replica) replica->pump();
    if ((items[2 * i].revents & ~POLLOUT) != 0) read_from(polled[i]);
    if (items[2 * i + 1].revents != 0) check_exit(polled[i]);
  }
  check_closed();
  hear_sources();
  hear_clients();
  watch_progress();
  // With events left unread nobody's silence means anything.
  if (client_ == nullptr || client_->has_room_for_frames()) coordinator_.tick(monotonic_now());
  act();
  log_waiting_for_nodes();
}

}  // namespace chorus

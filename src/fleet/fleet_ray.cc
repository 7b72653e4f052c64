// Replicas that Ray places. To the fleet they are replicas of other machines (fleet_remote.cc), also where Ray's nodes
// are this machine alone: Ray starts an actor for each, the actor starts the rank's node, and the node joins.
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <utility>

#include "base/log.h"
#include "cluster/node_plan.h"
#include "config/node.h"
#include "fleet/fleet_impl.h"
#include "fleet/node_command.h"
#include "net/authentication.h"

namespace chorus {
namespace {

constexpr int slice_ms = 100;  // an interrupt waits no longer than this
constexpr std::uint64_t kv_cache_bytes_max = std::uint64_t{4} << 30;

std::vector<PlanNode> plan_nodes_of(const RayCluster& cluster) {
  std::vector<PlanNode> nodes;
  for (const RayNode& node : cluster.nodes) nodes.push_back({node.address, node.cpus, node.cpus_free});
  return nodes;
}

NodePlanRequest plan_request(const EngineConfig& config) {
  NodePlanRequest request;
  request.strategy =
      config.ray_pack_strategy == "fill" ? NodePlanRequest::Strategy::fill : NodePlanRequest::Strategy::strict;
  request.ranks = config.parallel.data_parallel_size;
  const int per_node = config.parallel.data_parallel_size_local;
  request.ranks_per_node = per_node > 0 ? per_node : request.ranks;
  request.amount_per_rank = config.parallel.replica_size() * std::max(1, config.threads);
  return request;
}

// Nodes know nothing of each other: where several come to one machine, each would take the memory for itself.
std::uint64_t kv_cache_bytes_of(const EngineConfig& config, const NodePlanRequest& request, const RayCluster& cluster) {
  if (config.kv_cache_bytes > 0) return config.kv_cache_bytes;
  double bytes = static_cast<double>(kv_cache_bytes_max);
  for (const RayNode& node : cluster.nodes) {
    const double ranks = std::min(std::floor(node.cpus / request.amount_per_rank), 1.0 * request.ranks);
    if (ranks < 1 || node.memory_bytes <= 0) continue;
    bytes = std::min(bytes, node.memory_bytes / 2 / ranks / config.parallel.replica_size());
  }
  return static_cast<std::uint64_t>(bytes);
}

// Of a cluster whose nodes are all on this machine. Other users of the machine see the ranks' command lines, so the key
// is in a file without a name, which this user's processes alone can open and which goes with this one.
Result<UniqueFd> make_private_key() {
  UniqueFd file(::memfd_create("chorus cluster key", MFD_CLOEXEC));
  const std::string key = random_bytes(cluster_key_bytes_min);
  if (!file.valid() || ::fchmod(file.get(), S_IRUSR) != 0 ||
      ::write(file.get(), key.data(), key.size()) != static_cast<ssize_t>(key.size())) {
    return fail(ErrorCode::internal, "no key for the ranks on Ray: {}", std::strerror(errno));
  }
  return file;
}

Result<std::string> head_address(const EngineConfig& config, const RayCluster& cluster) {
  if (!config.parallel.data_parallel_address.empty()) return config.parallel.data_parallel_address;
  if (cluster.all_here()) return std::string("127.0.0.1");
  if (!config.cluster_key_file.empty()) return cluster.own_node;
  return fail(ErrorCode::invalid_argument,
              "the Ray cluster at {} has nodes on other machines, and there is no --cluster-key-file; make one with: "
              "(umask 077; openssl "
              "rand -hex 32 > FILE), and give it at the same path on every node",
              cluster.address);
}

}  // namespace

Result<void> FleetImpl::start_ray(const std::function<bool()>& interrupted) {
  if (!config_.on_ray() || config_.headless) return {};
  const Nanoseconds deadline = monotonic_now() + limits_.start_timeout;
  // A cluster of its own is there for the ranks alone: it has room for them.
  const int wanted = ranks_ * config_.parallel.replica_size() * std::max(1, config_.threads);
  CHORUS_TRY(ray_, RayLauncher::start(beside_this_program("chorus-ray"), config_.ray_address,
                                      std::max(wanted, detect_node().cores()),
                                      static_cast<int>(limits_.start_timeout / 1'000'000)));
  log(LogLevel::info, "{}",
      config_.ray_address.empty() ? std::string("Starting a Ray cluster on this machine")
                                  : fmt::format("Connecting to Ray at {}", config_.ray_address));
  std::optional<RayCluster> cluster;
  while (!cluster) {
    if (interrupted && interrupted()) return fail(ErrorCode::cancelled, "interrupted");
    if (monotonic_now() >= deadline) {
      return fail(ErrorCode::deadline_exceeded, "no Ray cluster within {} ms (--engine-start-timeout-ms)",
                  limits_.start_timeout / 1'000'000);
    }
    CHORUS_TRY(cluster, ray_->wait_for_cluster(slice_ms));
  }
  return place_on_ray(*cluster);
}

Result<void> FleetImpl::place_on_ray(const RayCluster& cluster) {
  const std::vector<PlanNode> nodes = plan_nodes_of(cluster);
  NodePlanRequest request = plan_request(config_);
  const int workers = config_.parallel.replica_size();
  if (config_.threads == 0) config_.threads = threads_that_fit(request, workers, nodes);
  request.amount_per_rank = workers * config_.threads;
  CHORUS_TRY(const std::vector<std::string> plan, plan_nodes(request, nodes));
  log(LogLevel::info, "Ray at {} has {} nodes; each of {} ranks gets CPU {}", cluster.address, nodes.size(), ranks_,
      request.amount_per_rank);

  config_.parallel.all_remote = true;
  CHORUS_TRY(config_.parallel.data_parallel_address, head_address(config_, cluster));
  if (config_.cluster_key_file.empty()) {
    CHORUS_TRY(ray_key_, make_private_key());
    config_.cluster_key_file = fmt::format("/proc/{}/fd/{}", ::getpid(), ray_key_.get());
  }
  config_.kv_cache_bytes = kv_cache_bytes_of(config_, request, cluster);
  config_.cpu_threads_bind = "none";  // Ray's nodes may have several ranks, which know nothing of each other
  CHORUS_TRY_VOID(listen_for_nodes());
  EngineConfig of_nodes = config_;
  of_nodes.parallel.data_parallel_rpc_port = remote_->address().port();
  std::vector<RayRank> ranks;
  for (int rank = 0; rank < ranks_; ++rank) {
    ranks.push_back(
        {rank, plan[static_cast<std::size_t>(rank)], node_command(beside_this_program("chorus"), of_nodes, rank)});
  }
  ray_->place(ranks, workers * config_.threads);
  ray_placed_.assign(static_cast<std::size_t>(ranks_), false);
  ray_failed_.assign(static_cast<std::size_t>(ranks_), false);
  return {};
}

void FleetImpl::hear_ray() {
  if (!ray_) return;
  for (const RayEvent& event : ray_->take()) {
    const bool of_rank = event.rank >= 0 && event.rank < ranks_;
    const auto rank = static_cast<std::size_t>(of_rank ? event.rank : 0);
    switch (event.kind) {
      case RayEvent::Kind::placed:
        if (of_rank) ray_placed_[rank] = true;
        log(LogLevel::info, "Ray has placed worker rank {} on node {}", event.rank, event.text);
        break;
      case RayEvent::Kind::lost:
        if (of_rank) ray_placed_[rank] = false;
        log(LogLevel::warning, "Ray has lost worker rank {} and starts it again: {}", event.rank, event.text);
        break;
      case RayEvent::Kind::failed:
        log(LogLevel::error, "Worker rank {} is given up on Ray: {}", event.rank, event.text);
        if (!of_rank) break;
        ray_failed_[rank] = true;
        last_deaths_[rank] = {ErrorCode::unavailable, fmt::format("is given up on Ray: {}", event.text)};
        if (!was_ready_[rank]) start_failed_ = true;
        break;
      case RayEvent::Kind::note:
        log(LogLevel::warning, "{}", event.text);
        break;
      case RayEvent::Kind::ended:
        log(LogLevel::error, "Ray is gone: {}", event.text);
        ray_end_ = event.text;
        break;
    }
  }
}

// Nothing of Ray's will come back by itself.
bool FleetImpl::ray_is_over() const {
  return ray_ != nullptr && (!ray_end_.empty() || std::ranges::all_of(ray_failed_, [](bool failed) { return failed; }));
}

// While the fleet starts: why ranks are missing, as far as Ray knows.
std::string FleetImpl::missing_on_ray() const {
  const std::string waiting = ranks_that([&](int rank) {
    return !ray_placed_[static_cast<std::size_t>(rank)] && !was_ready_[static_cast<std::size_t>(rank)];
  });
  if (waiting.empty()) return "Ray has placed them, and they still start";
  return fmt::format(
      "Ray has not placed ranks {}, each of which needs CPU {} on a node: the cluster is in use (ray status)", waiting,
      config_.parallel.replica_size() * config_.threads);
}

}  // namespace chorus

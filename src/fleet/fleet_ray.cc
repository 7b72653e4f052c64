// Replicas that Ray places. To the fleet they are replicas of other machines (fleet_remote.cc), also where Ray's nodes
// are this machine alone: Ray starts an actor for each, the actor starts the rank's node, and the node joins. With the
// strategy span that is so for each worker: it is a part of its rank, with an actor and a node of its own.
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
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

PlanNode plan_node_of(const RayNode& node) {
  return {node.address, node.cpus, node.cpus_free};
}

NodePlanRequest plan_request(const EngineConfig& config) {
  using Strategy = NodePlanRequest::Strategy;
  NodePlanRequest request;
  request.strategy = config.ray_pack_strategy == "fill"   ? Strategy::fill
                     : config.ray_pack_strategy == "span" ? Strategy::span
                                                          : Strategy::strict;
  request.ranks = config.parallel.data_parallel_size;
  const int per_node = config.parallel.data_parallel_size_local;
  request.ranks_per_node = per_node > 0 ? per_node : request.ranks;
  request.workers_per_rank = config.parallel.replica_size();
  request.amount_per_worker = std::max(1, config.threads);
  return request;
}

// Nodes know nothing of each other: where several come to one machine, each would take the memory for itself.
std::uint64_t kv_cache_bytes_of(const EngineConfig& config, const NodePlanRequest& request, const RayCluster& cluster) {
  if (config.kv_cache_bytes > 0) return config.kv_cache_bytes;
  double bytes = static_cast<double>(kv_cache_bytes_default_max);
  for (const RayNode& node : cluster.nodes) {
    const int workers = workers_on(request, plan_node_of(node));
    if (workers > 0 && node.memory_bytes > 0) bytes = std::min(bytes, node.memory_bytes / 2 / workers);
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

constexpr const char* make_a_key =
    "make one with: (umask 077; openssl rand -hex 32 > FILE), and give it at the same path on every node";

// A machine may join the cluster later: with a key that the user gave, a rank there reaches the head too.
Result<std::string> head_address(const EngineConfig& config, const RayCluster& cluster) {
  if (!config.parallel.data_parallel_address.empty()) return config.parallel.data_parallel_address;
  if (!config.cluster_key_file.empty()) return cluster.own_node;
  if (cluster.all_here()) return std::string("127.0.0.1");
  return fail(ErrorCode::invalid_argument,
              "the Ray cluster at {} has nodes on other machines, and there is no --cluster-key-file; {}",
              cluster.address, make_a_key);
}

// Why a rank that Ray moves to another machine cannot work there; empty: it can.
std::string only_here(bool has_private_key, const std::string& address) {
  if (has_private_key) return fmt::format("there is no --cluster-key-file; {}", make_a_key);
  if (!is_loopback(address)) return {};
  return fmt::format("the head listens at {}, which no other machine reaches; give --data-parallel-address", address);
}

}  // namespace

Result<void> FleetImpl::start_ray(const std::function<bool()>& interrupted) {
  if (!config_.on_ray() || config_.headless) return {};
  config_.parallel.all_remote = true;
  if (config_.ray_pack_strategy == "span") config_.parallel.nodes_per_replica = config_.parallel.replica_size();
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
  std::vector<PlanNode> nodes;
  for (const RayNode& node : cluster.nodes) nodes.push_back(plan_node_of(node));
  NodePlanRequest request = plan_request(config_);
  if (config_.threads == 0) config_.threads = threads_that_fit(request, nodes);
  request.amount_per_worker = config_.threads;
  CHORUS_TRY(const std::vector<std::string> plan, plan_nodes(request, nodes));
  log(LogLevel::info, "Ray at {} has {} nodes; each of {} ranks gets {}", cluster.address, nodes.size(), ranks_,
      ray_need());

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
  const int parts = config_.parallel.nodes_per_replica;
  std::vector<RayRank> ranks;
  for (int rank = 0; rank < ranks_; ++rank) {
    ranks.push_back({rank, {}});
    for (int part = 0; part < parts; ++part) {
      ranks.back().parts.push_back(
          {plan[static_cast<std::size_t>(rank)], node_command(beside_this_program("chorus"), of_nodes, rank, part)});
    }
  }
  ray_placed_.assign(static_cast<std::size_t>(ranks_), std::vector<bool>(static_cast<std::size_t>(parts)));
  return ray_->place(ranks, config_.parallel.workers_per_node() * config_.threads,
                     only_here(ray_key_.valid(), config_.parallel.data_parallel_address));
}

// What Ray is asked for each rank.
std::string FleetImpl::ray_need() const {
  const int parts = config_.parallel.nodes_per_replica;
  const std::string cpus = fmt::format("CPU {}", config_.parallel.workers_per_node() * config_.threads);
  return parts > 1 ? fmt::format("{} x {}", parts, cpus) : cpus;
}

// "1", and with several parts "1 part 0".
std::string FleetImpl::ray_name(const RayEvent& event) const {
  return fmt::format("{}{}", event.rank,
                     config_.parallel.nodes_per_replica > 1 ? fmt::format(" part {}", event.part) : "");
}

void FleetImpl::hear_ray() {
  if (!ray_) return;
  for (const RayEvent& event : ray_->take()) {
    const auto rank = static_cast<std::size_t>(event.rank);
    const bool known = event.rank >= 0 && event.rank < ranks_ && event.part < config_.parallel.nodes_per_replica;
    switch (event.kind) {
      case RayEvent::Kind::placed:
        if (known) ray_placed_[rank][static_cast<std::size_t>(event.part)] = true;
        log(LogLevel::info, "Ray has placed worker rank {} on node {}", ray_name(event), event.text);
        break;
      case RayEvent::Kind::lost:
        if (known) ray_placed_[rank][static_cast<std::size_t>(event.part)] = false;
        log(LogLevel::warning, "Ray has lost worker rank {} and starts it again: {}", ray_name(event), event.text);
        break;
      case RayEvent::Kind::failed:
        log(LogLevel::error, "Worker rank {} is given up on Ray: {}", ray_name(event), event.text);
        if (!known) break;
        coordinator_.will_not_return(event.rank);
        last_deaths_[rank] = {ErrorCode::unavailable, fmt::format("is given up on Ray: {}", event.text)};
        if (!was_ready_[rank]) start_failed_ = true;
        break;
      case RayEvent::Kind::note:
        log(LogLevel::warning, "{}", event.text);
        break;
      case RayEvent::Kind::ended:
        log(LogLevel::error, "Ray is gone: {}", event.text);
        ray_end_ = event.text;
        for (int other = 0; other < ranks_; ++other) coordinator_.will_not_return(other);
        break;
    }
  }
}

// While the fleet starts: why ranks are missing, as far as Ray knows. A rank is placed when all its parts are.
std::string FleetImpl::missing_on_ray() const {
  const std::string waiting = ranks_that([&](int rank) {
    const auto index = static_cast<std::size_t>(rank);
    return !was_ready_[index] && !std::ranges::all_of(ray_placed_[index], [](bool placed) { return placed; });
  });
  if (waiting.empty()) return "Ray has placed them, and they still start";
  return fmt::format("Ray has not placed ranks {}, each of which needs {}{}: the cluster is in use (ray status)",
                     waiting, ray_need(), config_.parallel.nodes_per_replica > 1 ? "" : " on a node");
}

}  // namespace chorus

#include "launch/ray_replicas.h"

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
#include "fleet/fleet_setup.h"
#include "launch/node_command.h"
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

void read_ray_environment(const EnvironmentLookup& lookup, EngineConfig* config) {
  if (!config->on_ray()) return;
  config->ray_address = lookup("RAY_ADDRESS").value_or("");
  if (config->ray_address == "local") config->ray_address.clear();
  for (const char* name : {"VLLM_RAY_DP_PACK_STRATEGY", "CHORUS_RAY_DP_PACK_STRATEGY"}) {
    if (const auto value = lookup(name); value && !value->empty()) config->ray_pack_strategy = *value;
  }
}

Result<void> RayReplicas::prepare(const FleetSetup& setup, const ModelConfig& model, EngineConfig* config) {
  program_ = beside_program(setup.engine_program, "chorus");
  config->parallel.all_remote = true;
  if (config->ray_pack_strategy == "span") config->parallel.nodes_per_replica = config->parallel.replica_size();
  CHORUS_TRY(const RayCluster cluster, connect(setup, *config));
  CHORUS_TRY_VOID(settle(cluster, config));
  CHORUS_TRY_VOID(nodes_.prepare(setup, model, config));
  return place(*config);
}

Result<RayCluster> RayReplicas::connect(const FleetSetup& setup, const EngineConfig& config) {
  const Nanoseconds timeout = setup.supervisor.start_timeout;
  const Nanoseconds deadline = monotonic_now() + timeout;
  // A cluster that is started for the ranks alone has room for them.
  const int wanted = config.parallel.world_size() * std::max(1, config.threads);
  CHORUS_TRY(launcher_,
             RayLauncher::start(beside_program(setup.engine_program, "chorus-ray"), config.ray_address,
                                std::max(wanted, detect_node().cores()), static_cast<int>(timeout / 1'000'000)));
  log(LogLevel::info, "{}",
      config.ray_address.empty() ? std::string("Starting a Ray cluster on this machine")
                                 : fmt::format("Connecting to Ray at {}", config.ray_address));
  std::optional<RayCluster> cluster;
  while (!cluster) {
    if (setup.interrupted && setup.interrupted()) return fail(ErrorCode::cancelled, "interrupted");
    if (monotonic_now() >= deadline) {
      return fail(ErrorCode::deadline_exceeded, "no Ray cluster within {} ms (--engine-start-timeout-ms)",
                  timeout / 1'000'000);
    }
    CHORUS_TRY(cluster, launcher_->wait_for_cluster(slice_ms));
  }
  return std::move(*cluster);
}

// What depends on the cluster: where each rank goes, how the ranks reach the head, and what each of them has.
Result<void> RayReplicas::settle(const RayCluster& cluster, EngineConfig* config) {
  std::vector<PlanNode> nodes;
  for (const RayNode& node : cluster.nodes) nodes.push_back(plan_node_of(node));
  NodePlanRequest request = plan_request(*config);
  if (config->threads == 0) config->threads = threads_that_fit(request, nodes);
  request.amount_per_worker = config->threads;
  CHORUS_TRY(plan_, plan_nodes(request, nodes));
  parallel_ = config->parallel;
  threads_ = config->threads;
  log(LogLevel::info, "Ray at {} has {} nodes; each of {} ranks gets {}", cluster.address, nodes.size(),
      parallel_.data_parallel_size, need());

  CHORUS_TRY(config->parallel.data_parallel_address, head_address(*config, cluster));
  if (config->cluster_key_file.empty()) {
    CHORUS_TRY(key_, make_private_key());
    config->cluster_key_file = fmt::format("/proc/{}/fd/{}", ::getpid(), key_.get());
  }
  config->kv_cache_bytes = kv_cache_bytes_of(*config, request, cluster);
  config->cpu_threads_bind = "none";  // Ray's nodes may have several ranks, which know nothing of each other
  return {};
}

Result<void> RayReplicas::place(const EngineConfig& config) {
  EngineConfig of_nodes = config;
  of_nodes.parallel.data_parallel_rpc_port = nodes_.address().port();
  const int parts = parallel_.nodes_per_replica;
  std::vector<RayRank> ranks;
  for (int rank = 0; rank < parallel_.data_parallel_size; ++rank) {
    ranks.push_back({rank, {}});
    for (int part = 0; part < parts; ++part) {
      ranks.back().parts.push_back(
          {plan_[static_cast<std::size_t>(rank)], node_command(program_, of_nodes, rank, part)});
    }
  }
  placed_.assign(ranks.size(), std::vector<bool>(static_cast<std::size_t>(parts)));
  return launcher_->place(ranks, parallel_.workers_per_node() * threads_,
                          only_here(key_.valid(), config.parallel.data_parallel_address));
}

void RayReplicas::open(SourceHost* host, const EngineConfig& config, const ModelConfig& model,
                       const LoadedWeights& weights) {
  host_ = host;
  nodes_.open(host, config, model, weights);
}

Result<void> RayReplicas::check_start(Nanoseconds now) {
  if (!end_.empty()) return fail(ErrorCode::unavailable, "{}", end_);
  return nodes_.check_start(now);
}

void RayReplicas::append_descriptors(std::vector<pollfd>* items) const {
  items->push_back({launcher_->descriptor(), POLLIN, 0});
  nodes_.append_descriptors(items);
}

std::vector<SourceEvent> RayReplicas::advance(Nanoseconds now) {
  std::vector<SourceEvent> events;
  for (const RayEvent& event : launcher_->take()) hear(event, &events);
  for (SourceEvent& event : nodes_.advance(now)) events.push_back(std::move(event));
  return events;
}

void RayReplicas::hear(const RayEvent& event, std::vector<SourceEvent>* events) {
  using enum SourceEvent::Kind;
  const int ranks = parallel_.data_parallel_size;
  const bool known =
      event.rank >= 0 && event.rank < ranks && event.part >= 0 && event.part < parallel_.nodes_per_replica;
  const auto set_placed = [&](bool placed) {
    if (known) placed_[static_cast<std::size_t>(event.rank)][static_cast<std::size_t>(event.part)] = placed;
  };
  switch (event.kind) {
    case RayEvent::Kind::placed:
      set_placed(true);
      log(LogLevel::info, "Ray has placed worker rank {} on node {}", name_of(event), event.text);
      break;
    case RayEvent::Kind::lost:
      set_placed(false);
      log(LogLevel::warning, "Ray has lost worker rank {} and starts it again: {}", name_of(event), event.text);
      break;
    case RayEvent::Kind::failed:
      log(LogLevel::error, "Worker rank {} is given up on Ray: {}", name_of(event), event.text);
      if (known) events->push_back({will_not_return, event.rank, fmt::format("is given up on Ray: {}", event.text)});
      break;
    case RayEvent::Kind::note:
      log(LogLevel::warning, "{}", event.text);
      break;
    case RayEvent::Kind::ended:
      log(LogLevel::error, "Ray is gone: {}", event.text);
      end_ = event.text;
      for (int rank = 0; rank < ranks; ++rank) events->push_back({will_not_return, rank, {}});
      break;
  }
}

// What Ray is asked for each rank.
std::string RayReplicas::need() const {
  const int parts = parallel_.nodes_per_replica;
  const std::string cpus = fmt::format("CPU {}", parallel_.workers_per_node() * threads_);
  return parts > 1 ? fmt::format("{} x {}", parts, cpus) : cpus;
}

// "1", and with several parts "1 part 0".
std::string RayReplicas::name_of(const RayEvent& event) const {
  return fmt::format("{}{}", event.rank, parallel_.nodes_per_replica > 1 ? fmt::format(" part {}", event.part) : "");
}

// While the fleet starts: why ranks are missing, as far as Ray knows. A rank is placed when all its parts are.
std::string RayReplicas::missing() const {
  std::string waiting;
  for (int rank = 0; rank < parallel_.data_parallel_size; ++rank) {
    const auto& parts = placed_[static_cast<std::size_t>(rank)];
    if (host_->was_ready(rank) || std::ranges::all_of(parts, [](bool placed) { return placed; })) continue;
    waiting += fmt::format("{}{}", waiting.empty() ? "" : ", ", rank);
  }
  if (waiting.empty()) return "Ray has placed them, and they still start";
  return fmt::format("Ray has not placed ranks {}, each of which needs {}{}: the cluster is in use (ray status)",
                     waiting, need(), parallel_.nodes_per_replica > 1 ? "" : " on a node");
}

}  // namespace chorus

#include "launch/remote_node.h"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "base/check.h"
#include "base/log.h"
#include "config/node.h"
#include "launch/remote_worker.h"
#include "worker/cluster_fingerprint.h"

namespace chorus {
namespace {

constexpr int interrupt_slice_ms = 100;
constexpr Nanoseconds millisecond = 1'000'000;

std::string host_name() {
  std::array<char, 256> name{};
  return ::gethostname(name.data(), name.size() - 1) == 0 && name[0] != '\0' ? name.data() : "unnamed";
}

Result<RemoteNodeContext> prepare(const EngineConfig& given, const ModelConfig& model, const RemoteNodeSetup& setup) {
  const EngineConfig config = settled(given, model);
  RemoteNodeContext node;
  node.config = config;
  node.model = model;
  node.node_name = host_name();
  node.engine_program = setup.engine_program;
  node.worlds = NodeWorlds(config.parallel);
  if (!config.cluster_key_file.empty()) {
    CHORUS_TRY(node.key, ClusterKey::read(config.cluster_key_file));
  }
  CHORUS_TRY(node.head, tcp::resolve(config.parallel.head_address(), config.parallel.data_parallel_rpc_port));
  const NodeResources resources = detect_node();
  node.threads = threads_per_worker(config, resources);
  std::vector<std::string> warnings;
  CHORUS_TRY(node.cpu_sets, cpu_sets_per_worker(config, resources, &warnings));
  for (const std::string& warning : warnings) log(LogLevel::warning, "{}", warning);
  CHORUS_TRY(node.weights, setup.load_weights(config, model, local_weight_shards(config.parallel), resources.cores(),
                                              setup.interrupted));
  CHORUS_TRY(node.kv_cache_bytes, kv_cache_bytes_per_worker(config, detect_node(), 0));
  node.fingerprint = cluster_fingerprint(config, model, node.weights);
  return node;
}

// One pass: everything that can go on does, then waits.
void turn(std::vector<RemoteWorker>* workers) {
  const Nanoseconds now = monotonic_now();
  for (RemoteWorker& worker : *workers) worker.advance(now);
  if (std::ranges::any_of(*workers, &RemoteWorker::told_to_end)) {
    for (RemoteWorker& worker : *workers) worker.end_unless_connected();
  }
  Nanoseconds wait = interrupt_slice_ms * millisecond;
  std::vector<pollfd> items;
  for (const RemoteWorker& worker : *workers) {
    worker.append_descriptors(&items);
    if (const auto deadline = worker.next_deadline()) wait = std::min(wait, *deadline - monotonic_now());
  }
  if (std::ranges::all_of(*workers, &RemoteWorker::over)) return;
  const int ready = ::poll(items.data(), items.size(),
                           static_cast<int>((std::max(wait, Nanoseconds{0}) + millisecond - 1) / millisecond));
  CHECK(ready >= 0 || errno == EINTR, "poll: {}", std::strerror(errno));
}

}  // namespace

Result<void> run_remote_node(const EngineConfig& config, const ModelConfig& model, const RemoteNodeSetup& setup) {
  CHORUS_TRY(RemoteNodeContext node, prepare(config, model, setup));
  const ParallelConfig& parallel = node.config.parallel;
  const int first = parallel.data_parallel_start_rank;
  const int count = parallel.local_replicas();
  log(LogLevel::info, "Starting {} data parallel workers, ranks {} to {}, for the head at {}", count, first,
      first + count - 1, node.head.front().text());
  std::vector<RemoteWorker> workers;
  // With the engine come the other workers of its replica, or each comes by itself.
  const int singly = parallel.workers_join_singly() ? parallel.workers_per_node() : 1;
  for (int rank = first; rank < first + count; ++rank) {
    for (int worker = 0; worker < singly; ++worker) {
      workers.emplace_back(rank, parallel.first_local_worker() + worker, &node, monotonic_now());
    }
  }
  while (!std::ranges::all_of(workers, &RemoteWorker::over)) {
    if (setup.interrupted && setup.interrupted()) return fail(ErrorCode::cancelled, "interrupted");
    turn(&workers);
  }
  for (const RemoteWorker& worker : workers) {
    if (worker.given_up()) return *worker.given_up();
  }
  log(LogLevel::info, "The head has ended");
  return {};
}

Result<void> run_remote_node(const EngineConfig& config, const ModelConfig& model,
                             const std::function<bool()>& interrupted) {
  return run_remote_node(config, model, RemoteNodeSetup{load_weights, interrupted});
}

}  // namespace chorus

#include "launch/launched_world.h"

#include <utility>

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "config/node.h"
#include "exec/replica_executor.h"
#include "fleet/connected_replicas.h"
#include "fleet/fleet_setup.h"
#include "worker/cluster_fingerprint.h"
#include "worker/engine_process.h"

namespace chorus {
namespace {

constexpr int idle_slice_ms = 500;
constexpr std::size_t word_bytes_max = 64;
const std::string begin_word = "begin";

}  // namespace

Result<std::unique_ptr<LaunchedWorld>> LaunchedWorld::join(const LauncherEnvironment& environment,
                                                           const EngineConfig& given, const ModelConfig& model,
                                                           std::function<bool()> interrupted,
                                                           std::shared_ptr<Store> store) {
  const EngineConfig config = settled(given, model);
  if (environment.launcher == Launcher::none) {
    return fail(ErrorCode::invalid_argument,
                "--distributed-executor-backend external_launcher, but no launcher started this process: use torchrun, "
                "mpirun or "
                "srun, or set RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT");
  }
  CHORUS_TRY(const Topology topology, Topology::create(config.parallel, environment.world_size));
  std::shared_ptr<const ClusterKey> key;
  if (!config.cluster_key_file.empty()) {
    CHORUS_TRY(key, ClusterKey::read(config.cluster_key_file));
  }
  JoinOptions options;
  options.timeout_ms = config.engine_start_timeout_ms;
  options.exchange_timeout_ms = config.engine_heartbeat_timeout_ms;
  CHORUS_TRY(const LoadedWeights described, load_weights(config, model, {}, 1));
  options.fingerprint = cluster_fingerprint(config, model, described);
  for (auto& option : options_with(config, Agreement::launched)) options.fingerprint.push_back(std::move(option));
  options.key = key;
  MeetingPlace place{nullptr, std::move(store)};
  if (!place.store) {
    CHORUS_TRY(place, open_meeting_place(environment, key, options.timeout_ms));
  }
  CHORUS_TRY(auto transport, join_world(place.store, environment.rank, environment.world_size, options));
  std::vector<int> everyone(static_cast<std::size_t>(environment.world_size));
  for (std::size_t rank = 0; rank < everyone.size(); ++rank) everyone[rank] = static_cast<int>(rank);
  std::unique_ptr<LaunchedWorld> world(
      new LaunchedWorld(config, model, topology, Group(transport, std::move(everyone))));
  world->transport_ = std::move(transport);
  world->interrupted_ = std::move(interrupted);
  world->profile_ = numerics_profile(described, config);
  if (const auto connected = world->connect(place.store, key); !connected.ok()) {
    world->abort(connected.error());
    return connected.error();
  }
  return world;
}

LaunchedWorld::~LaunchedWorld() {
  if (!parted_) abort(fail(ErrorCode::unavailable, "ended early"));
  if (engine_.joinable()) engine_.join();
}

Result<void> LaunchedWorld::choose_resources() {
  const NodeResources node = detect_node();
  CHORUS_TRY(const std::string identity, node_identity());
  const Whereabouts own = make_whereabouts(identity, node);
  std::vector<Whereabouts> ranks(static_cast<std::size_t>(world_.size()));
  CHORUS_TRY_VOID(world_.all_gather_bytes(std::as_bytes(std::span(&own, 1)), std::as_writable_bytes(std::span(ranks))));
  CHORUS_TRY(resources_, share_node(config_, node, ranks, rank()));
  config_.parallel.launched_workers = resources_.ranks_here;
  return {};
}

// When it returns in rank 0, no rank needs the store any more.
Result<void> LaunchedWorld::connect(const std::shared_ptr<Store>& store, const std::shared_ptr<const ClusterKey>& key) {
  CHORUS_TRY_VOID(choose_resources());
  const bool one_node = resources_.ranks_here == world_.size();
  if (one_node && !is_engine()) return {};
  if (one_node) {
    const auto engines = make_prefix_store(store, "engines");
    CHORUS_TRY(connections_, hand_over_engine_sockets(config_, rank(), *engines));
    return {};
  }
  // All see the same nodes, and none of them goes on.
  if (!key) return missing_cluster_key("the ranks are on several nodes");
  CHORUS_TRY(connections_, connect_engines(config_, &world_, store->local_address(), key, [this] { return check(); }));
  return {};
}

// Whether all ranks are there still, and this one is to go on.
Result<void> LaunchedWorld::check() {
  if (interrupted_ && interrupted_()) return fail(ErrorCode::cancelled, "interrupted");
  if (!transport_) return {};
  // A rank of the next replica, or of this one: any tells when the world is broken.
  const int next = (rank() + config_.parallel.replica_size()) % world_.size();
  CHORUS_TRY_VOID(transport_->wait_for(next != rank() ? next : (rank() + 1) % world_.size(), 0));
  return {};
}

Result<LoadedWeights> LaunchedWorld::load_own_weights() {
  Result<void> checked;
  const auto stop = [&] {
    checked = check();
    return !checked.ok();
  };
  const int shard = weight_shard_of(config_.parallel, topology_.coordinates_of(rank()));
  auto weights = load_weights(config_, model_, {shard}, resources_.threads, stop);
  if (!checked.ok()) return checked.error();
  return weights;
}

WorkerSetup LaunchedWorld::own_setup() const {
  WorkerSetup setup;
  setup.config = config_;
  setup.model = model_;
  setup.world_rank = world_.rank();
  setup.threads = resources_.threads;
  setup.cpus = resources_.cpus;
  setup.transport = transport_;
  setup.first_world_rank = 0;
  return setup;
}

Result<void> LaunchedWorld::serve_as_engine() {
  const auto fleet = std::move(connections_.fleet);  // closed when this ends, whatever the end
  LoadedWeights weights;                             // outlive the replica
  return serve_engine(fleet.get(), profile_, [&](const EngineStart&) -> Result<StartedReplica> {
    CHORUS_TRY(weights, load_own_weights());
    WorkerSetup setup = own_setup();
    CHORUS_TRY(setup.kv_cache_bytes, kv_cache_bytes_per_worker(config_, detect_node(), 0));
    StartedReplica replica;
    CHORUS_TRY(replica.executor, make_replica_executor(setup, weights));
    replica.check = [this] { return check(); };
    return replica;
  });
}

Result<void> LaunchedWorld::serve_as_worker() {
  CHORUS_TRY(const LoadedWeights weights, load_own_weights());
  WorkerSetup setup = own_setup();
  CHORUS_TRY(setup.kv_cache_bytes, kv_cache_bytes_per_worker(config_, detect_node(), 0));
  return run_worker(setup, weights, interrupted_);
}

// Rank 0 reads its input first, for as long as it takes.
Result<void> LaunchedWorld::wait_for_rank_0() {
  std::string word;
  while (rank() != 0) {
    CHORUS_TRY(const bool there, world_.wait_for(0, idle_slice_ms));
    if (there) break;
    CHORUS_TRY_VOID(check());
  }
  word = begin_word;
  return world_.broadcast_message(&word, 0, word_bytes_max);
}

Result<std::unique_ptr<Fleet>> LaunchedWorld::start_fleet(const ModelConfig& model) {
  CHECK(rank() == 0 && !engine_.joinable(), "rank {} starts the fleet, or starts it twice", rank());
  CHORUS_TRY_VOID(wait_for_rank_0());
  engine_ = std::thread([this] {
    engine_result_ = serve_as_engine();
    if (!engine_result_.ok()) abort(engine_result_.error());
    engine_ended_ = true;
  });
  FleetSetup setup{{}, supervisor_limits(config_), interrupted_, {}};
  // The transport is the engine thread's, which asks it (check()).
  const auto check_world = [this] { return engine_ended_ ? engine_result_ : Result<void>(); };
  setup.sources.push_back(std::make_unique<ConnectedReplicas>(std::move(connections_.engines), check_world));
  // The engines have theirs.
  setup.load_weights = [](const EngineConfig& config, const ModelConfig& weights_of, const std::vector<int>&, int,
                          const std::function<bool()>&) { return load_weights(config, weights_of, {}, 1); };
  auto fleet = chorus::start_fleet(config_, model, std::move(setup));
  if (!fleet.ok()) {
    abort(fleet.error());
    return fleet.error();
  }
  return std::unique_ptr<Fleet>(std::move(*fleet));
}

Result<void> LaunchedWorld::serve() {
  CHECK(rank() != 0, "rank 0 holds the fleet");
  auto served = wait_for_rank_0();
  if (served.ok()) served = is_engine() ? serve_as_engine() : serve_as_worker();
  if (!served.ok()) abort(served.error());
  return served;
}

Result<void> LaunchedWorld::part() {
  if (engine_.joinable()) engine_.join();
  CHORUS_TRY_VOID(engine_result_);
  CHORUS_TRY_VOID(world_.barrier());
  parted_ = true;
  return {};
}

void LaunchedWorld::abort(const Error& reason) {
  if (transport_) transport_->abort(reason.message);
}

}  // namespace chorus

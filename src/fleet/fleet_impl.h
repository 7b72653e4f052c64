// The class behind fleet.h, in six files: fleet.cc (start, end, the caller's side and the loop), fleet_messages.cc
// (what engines say and what goes out to them), fleet_lifecycle.cc (processes that start, die and start again),
// fleet_remote.cc (replicas that other machines bring), fleet_spread.cc (those whose workers come one by one),
// fleet_ray.cc (those that Ray places).
#pragma once

#include <poll.h>

#include <optional>
#include <random>
#include <string>
#include <vector>

#include "base/clock.h"
#include "cluster/coordinator.h"
#include "cluster/dispatcher.h"
#include "fleet/fleet.h"
#include "fleet/fleet_setup.h"
#include "fleet/own_node.h"
#include "fleet/ray_launcher.h"
#include "fleet/remote_replicas.h"
#include "fleet/replica_link.h"
#include "parallel/transport/transport.h"

namespace chorus {

class FleetImpl final : public Fleet {
 public:
  FleetImpl(const EngineConfig& config, const ModelConfig& model, const SupervisorLimits& limits);
  ~FleetImpl() override;

  Result<void> start(FleetSetup setup);

  Result<RequestId> submit(Request request, std::optional<int> dp_rank) override;
  void abort(RequestId request) override;
  void abort_choice(RequestId request, std::uint32_t choice) override;
  Result<void> poll(int timeout_ms, std::vector<FleetEvent>* events) override;
  std::vector<ReplicaStatus> replicas() const override;
  FleetTimes times() const override { return times_; }

 private:
  // Life and death.
  void act();
  void act(const CoordinatorAction& action);
  void spawn(const CoordinatorAction& action);
  Result<ReplicaLink> begin_link(Placement replica);
  void bury(const ReplicaNews& news);
  void kill(Placement replica);
  void check_exit(int rank, int timeout_ms);
  void fault(ReplicaLink& link, const std::string& reason);
  void check_sending();
  void watch_progress();
  ProgressSample progress_of(int rank) const;
  bool works(int rank) const;
  Result<ReplicaLink> start_in_world(const CoordinatorAction& action);
  void log_end(const CoordinatorAction& action) const;
  struct Death {
    ErrorCode code = ErrorCode::unavailable;
    std::string words;  // "was killed by SIGKILL"; empty: has not died
  };
  Death death_of(const ReplicaLink& link, int because_of) const;
  Error start_error() const;
  Error all_dead() const;
  Error with_deaths(Error error, bool before_ready_only) const;

  // Replicas of other machines: one starts when its node joins, and is given up until then.
  Result<void> listen_for_nodes();
  void start_remote_ranks();
  Result<void> check_missing_nodes();
  void welcome_nodes();
  bool is_remote(int rank) const { return remote_ != nullptr && !config_.parallel.is_local(rank); }
  bool is_over() const { return coordinator_.is_over(monotonic_now()); }
  void log_waiting_for_nodes();

  // Workers that join singly: a replica starts when all of its workers are there, and its world is formed when all of
  // that world have told their contacts.
  int workers_that_join() const { return config_.parallel.workers_join_singly() ? config_.parallel.replica_size() : 1; }
  std::unique_ptr<Connection>& joined(int rank, int worker) { return joined_[slot(rank, worker)]; }
  std::size_t slot(int rank, int worker) const { return static_cast<std::size_t>(rank * workers_that_join() + worker); }
  bool all_joined(int rank) const;
  void begin_if_complete(int rank);
  void watch_joined();
  void append_singly_joined(std::vector<pollfd>* items) const;
  void start_own_node(const FleetSetup& setup);
  WelcomeMessage welcome_of(Placement replica) const;
  void begin_followers(Placement replica);
  void read_followers();
  Result<void> handle_follower(Placement replica, int worker, const Frame& frame);
  Result<void> take_contact(Placement replica, int worker, const Frame& frame);
  void form_world(int rank);
  std::string missing_workers() const;
  std::vector<ReplicaLink>& followers(int rank) { return followers_[static_cast<std::size_t>(rank)]; }

  // Ray: which of them it has placed, and which it does not bring back.
  Result<void> start_ray(const std::function<bool()>& interrupted);
  Result<void> place_on_ray(const RayCluster& cluster);
  void hear_ray();
  std::string missing_on_ray() const;
  std::string ray_need() const;
  std::string ray_name(const RayEvent& event) const;
  // Ranks 2, 3 and 5 as "2, 3, 5".
  template <typename Predicate>
  std::string ranks_that(const Predicate& predicate) const {
    std::string text;
    for (int rank = 0; rank < ranks_; ++rank) {
      if (predicate(rank)) text += fmt::format("{}{}", text.empty() ? "" : ", ", rank);
    }
    return text;
  }

  // Messages.
  void read_from(int rank);
  Result<void> handle(ReplicaLink& link, const Frame& frame);
  Result<void> on_hello(ReplicaLink& link, const Frame& frame);
  Result<HelloMessage> greet(ReplicaLink& link, const Frame& frame);
  EngineStart engine_start_of(Placement replica) const;
  Result<void> on_ready(ReplicaLink& link, const Frame& frame);
  Result<void> on_fatal(ReplicaLink& link, const Frame& frame);
  Result<void> on_events(ReplicaLink& link, const Frame& frame);
  Result<void> on_load(ReplicaLink& link, const Frame& frame);
  Result<void> on_wave_ended(const ReplicaLink& link, const Frame& frame);
  void send_messages();
  bool is_ready(int rank) const { return rank < coordinator_.replicas() && coordinator_.is_ready(rank); }

  // One pass of the loop.
  void turn(int timeout_ms);
  int wait_ms(Nanoseconds deadline) const;

  std::optional<ReplicaLink>& link(int rank) { return links_[static_cast<std::size_t>(rank)]; }

  EngineConfig config_;
  ModelConfig model_;
  int ranks_;
  SupervisorLimits limits_;
  Dispatcher dispatcher_;
  Coordinator coordinator_;
  std::vector<std::optional<ReplicaLink>> links_;       // by rank: the present incarnation, until its process is reaped
  std::vector<std::unique_ptr<Connection>> connected_;  // by rank: to engines that are there, until they are adopted
  std::unique_ptr<RemoteReplicas> remote_;              // null: all replicas are of this machine
  std::vector<std::unique_ptr<Connection>> joined_;     // by rank and worker: of a node, until it is adopted
  std::vector<std::vector<ReplicaLink>> followers_;     // by rank: its workers from 1 on, where they join singly
  std::vector<std::string> contacts_;  // by world rank, of the present incarnations; empty: not told yet
  int own_replicas_ = 0;               // of this machine, where there are others
  std::unique_ptr<OwnNode> own_node_;  // brings this machine's part of workers that join singly
  Nanoseconds missing_deadline_ = 0;   // of the nodes that have not joined since the start
  Nanoseconds missing_log_at_ = 0;
  bool waits_for_nodes_ = false;               // nobody is left, and that was said
  UniqueFd ray_key_;                           // where no --cluster-key-file was given
  std::unique_ptr<RayLauncher> ray_;           // null: not on Ray
  std::vector<std::vector<bool>> ray_placed_;  // by rank and part
  std::string ray_end_;                        // why chorus-ray has ended; empty: it has not
  std::vector<EngineLoad> loads_;
  std::vector<Death> last_deaths_;  // by rank
  std::vector<bool> was_ready_;     // by rank: some incarnation of it was READY
  int starts_left_;                 // ranks that never were
  bool start_failed_ = false;       // one of them died
  LoadedWeights weights_;
  int threads_ = 1;
  std::uint64_t kv_cache_bytes_ = 0;
  std::vector<std::vector<int>> cpu_sets_;
  static constexpr ClientId client_ = 0;  // of this process, over the engines' control connections
  FleetTimes times_;
  // Replicas that step together share a world, and end with it: each new start of them all is in a new one.
  std::optional<SharedWorld> world_;
  std::uint64_t world_number_ = 0;                                                   // of world_
  std::uint64_t first_world_ = std::random_device{}() * std::uint64_t{0x100000000};  // what nodes call world 0
  std::vector<std::uint64_t> worlds_of_;  // by rank: the world of its present incarnation; 0: none
};

}  // namespace chorus

// A simulated cluster: the production router, ledger, load view, balancer, supervisor and schedulers, under a clock of
// its own, between a random workload and random faults. Everything follows from the seed.
//
// Faults: processes die at any point, with frames in flight of which a part still arrives; are stopped and wake up
// later, some after they were replaced; do not start, or hang while starting; cannot be killed; all die at once. Links
// delay and keep their order.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "client.h"
#include "cluster/router.h"
#include "cluster/supervisor.h"
#include "digest.h"
#include "event_queue.h"
#include "random.h"
#include "replica.h"
#include "sabotage.h"
#include "workload.h"

namespace chorus::sim {

struct WorldConfig {
  std::uint64_t seed = 1;
  std::size_t requests = 1000;
  int replicas = 0;  // 0: 1 to 8, from the seed
  bool faults = true;
  std::uint64_t cluster_seed = 0;  // 0: seed. Another one: the same requests on another cluster with other faults
  Sabotage sabotage = Sabotage::none;
};

struct Totals {
  std::uint64_t requests = 0;
  std::uint64_t tokens = 0;         // delivered
  std::uint64_t deaths = 0;         // epochs declared dead
  std::uint64_t zombies = 0;        // woke up after they were declared dead
  std::uint64_t resubmissions = 0;  // requests sent again
  std::uint64_t dropped = 0;        // events of old epochs, or of aborted requests
  std::uint64_t all_dead = 0;       // times that no replica was left
  std::uint64_t preemptions = 0;
  std::uint64_t cache_hits = 0;  // prompt tokens
  std::uint64_t aborts = 0;
  std::uint64_t most_in_flight = 0;  // plans of a replica at a time
  std::uint64_t pooled = 0;          // worlds whose KV cache has several pools
  void add(const Totals& other);
};

struct Outcome {
  Totals totals;
  Violations violations;
  std::uint64_t trace_digest = 0;   // of every decision, in order
  std::uint64_t output_digest = 0;  // of what the clients got
};

class World {
 public:
  explicit World(const WorldConfig& config);
  Outcome run();

 private:
  // Drawn from the cluster seed.
  struct Shape {
    int replicas = 1;
    SchedulerConfig scheduler;
    LoadBalancerName balancer = LoadBalancerName::least_loaded;
    SupervisorLimits limits;
    Nanoseconds step_time = 0;
    Nanoseconds delay_mean = 0;
    Nanoseconds fault_gap = 0;
    double pinned = 0;  // share of the requests that ask for a rank
  };
  static Shape draw_shape(const WorldConfig& config, Random* random);

  // world.cc: requests, links and replicas.
  void arrive(std::size_t job);
  void hang_up(RequestId request);
  void pump();
  void act(const SupervisorAction& action);
  void send_to_replica(RouterMessage message);
  void send_to_front_end(Replica* replica, std::function<void()> arrival);
  void step_if_idle(Replica* replica);
  void step_done(Replica* replica, std::function<void()> say);
  void receive(const std::shared_ptr<Frame>& frame);
  void receive_event(Placement from, TokenEvent* event);
  void schedule_tick();
  Nanoseconds delay();

  // world_faults.cc: births, deaths and what goes wrong.
  void spawn(Placement placement);
  void ready(Replica* replica);
  void heartbeat(Replica* replica);
  void inject_fault();
  void crash(Replica* replica);
  void stop(Replica* replica);
  void wake(Replica* replica);
  void kill(Placement placement);
  bool is_present(const Replica& replica) const;
  Replica* find(Placement placement);

  // world_checks.cc
  void check_counts();
  void check_end();
  void collect();

  WorldConfig config_;
  Random random_;
  Shape shape_;
  std::vector<Job> jobs_;
  EventQueue queue_;
  Router router_;
  Supervisor supervisor_;
  std::vector<std::unique_ptr<Replica>> replicas_;  // of every epoch
  std::vector<Epoch> died_;                         // a rank's newest dead epoch
  ToyModel oracle_model_;
  Clients clients_;
  Saboteur saboteur_;
  Digest trace_;
  Totals totals_;
  std::size_t arrived_ = 0;
  Nanoseconds tick_at_ = 0;  // the planned tick; 0: none
};

Outcome run_world(const WorldConfig& config);

}  // namespace chorus::sim

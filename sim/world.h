// A simulated cluster: the production Dispatchers, Coordinator and schedulers, under a simulated clock, between a
// random workload and random faults. Everything follows from the seed.
//
// A parent has the Coordinator; front ends have a Dispatcher each; replicas have a scheduler and a toy model. Each pair
// has a connection that delays and keeps its order.
//
// Faults: replicas die at any point, with frames in flight of which a part still arrives; are stopped and wake up
// later, some after they were replaced; do not start, or hang while starting; cannot be killed; all die at once;
// compute a request that kills them. Front ends die with their requests and come back with none. Replicas are drained,
// removed, added and restarted, all of them are paused. Queues are short.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "client.h"
#include "cluster/coordinator.h"
#include "cluster/dispatcher.h"
#include "digest.h"
#include "event_queue.h"
#include "front_end.h"
#include "random.h"
#include "replica.h"
#include "workload.h"

namespace chorus::sim {

struct WorldConfig {
  std::uint64_t seed = 1;
  std::size_t requests = 1000;
  int front_ends = 0;  // 0: 1 to 4, from the seed
  int replicas = 0;    // 0: 1 to 8, from the seed
  bool faults = true;
  bool poison = true;             // some requests kill replicas
  bool together = false;          // all replicas step together, in waves; else in one world of five
  std::uint32_t restarts = 0;     // of a replica in a row; 0: from the seed
  Nanoseconds operation_gap = 0;  // mean time between two of the operator's acts; 0: from the seed
  PlantedFault planted = PlantedFault::none;
};

struct Totals {
  std::uint64_t requests = 0;
  std::uint64_t tokens = 0;  // delivered
  std::uint64_t deaths = 0;  // epochs declared dead
  std::uint64_t front_end_deaths = 0;
  std::uint64_t zombies = 0;        // woke up after they were declared dead
  std::uint64_t resubmissions = 0;  // requests sent again
  std::uint64_t dropped = 0;        // events of old epochs, or of aborted requests
  std::uint64_t refused = 0;        // submissions beyond a bound
  std::uint64_t aborts = 0;
  std::uint64_t drains = 0, removals = 0, additions = 0, restarts = 0, pauses = 0;
  std::uint64_t loans = 0;              // a suspect ran alone
  std::uint64_t convicted = 0;          // and was the cause
  std::uint64_t wrongly_convicted = 0;  // its replica died of something else, while it was alone too
  std::uint64_t waves = 0;
  std::uint64_t ends = 0;  // clusters whose replicas were all given up
  std::uint64_t preemptions = 0;
  std::uint64_t cache_hits = 0;      // prompt tokens
  std::uint64_t most_in_flight = 0;  // plans of a replica at a time
  std::uint64_t pooled = 0;          // worlds whose KV cache has several pools
  void add(const Totals& other);
};

struct Outcome {
  Totals totals;
  Violations violations;
  std::uint64_t trace_digest = 0;  // of every decision, in order
};

class World {
 public:
  explicit World(const WorldConfig& config);
  Outcome run();

 private:
  // Drawn from the seed.
  struct Shape {
    int front_ends = 1;
    int replicas = 1;
    bool together = false;
    SchedulerConfig scheduler;
    LoadBalancerName balancer = LoadBalancerName::least_loaded;
    DispatcherLimits limits;
    SupervisorLimits supervisor;
    Nanoseconds drain_timeout = 0;
    Nanoseconds step_time = 0;
    Nanoseconds delay_mean = 0;
    Nanoseconds fault_gap = 0;
    Nanoseconds operation_gap = 0;
    double wished = 0;  // share of the requests that wish for a replica
  };
  static Shape draw_shape(const WorldConfig& config, Random* random);
  CoordinatorConfig coordinator_config() const;

  // world.cc: requests, front ends and the parent.
  void start_front_end();
  void arrive(std::size_t job);
  void submit(const Job& job, Nanoseconds patience);
  void hang_up(RequestId request);
  void pump();
  void act(const CoordinatorAction& action);
  void tell_front_ends(const ReplicaNews& news);
  void send_news(FrontEnd* front_end, const ReplicaNews& news);
  void hear(FrontEnd* front_end, const ReplicaNews& news);
  void serve(FrontEnd* front_end);
  void deliver(FrontEnd* front_end);
  void schedule_tick();
  Nanoseconds delay();
  std::vector<FrontEnd*> living_front_ends();
  FrontEnd* find_front_end(ClientId client);

  // world_replicas.cc: what goes on between them and replicas.
  void send_to_replica(FrontEnd* front_end, Replica* replica, ReplicaMessage message);
  void send_from_replica(Replica* replica, ClientId to, std::function<void()> arrival);
  void step_if_idle(Replica* replica);
  bool may_step(const Replica& replica);
  void step_done(Replica* replica, std::vector<TokenEvent> events);
  void report(Replica* replica, std::vector<TokenEvent> events);
  void receive(ClientId client, const std::shared_ptr<Frame>& frame);
  void begin_wave(Placement placement, std::uint64_t wave);
  void vote(std::uint64_t world, std::uint64_t wave);
  std::vector<Replica*> members(std::uint64_t world);

  // world_faults.cc: births, deaths and what goes wrong.
  void spawn(const CoordinatorAction& action);
  void ready(Replica* replica);
  void heartbeat(Replica* replica);
  void inject_fault();
  void operate();
  void drain_for_a_while(int replica);
  void pause_for_a_while();
  Nanoseconds while_of_an_operator();
  void front_end_dies();
  void crash(Replica* replica);
  void stop(Replica* replica);
  void wake(Replica* replica);
  void kill(Placement placement);
  bool is_present(const Replica& replica) const;
  Replica* find(Placement placement);

  // world_checks.cc
  void check_order(FrontEnd* front_end);
  void check_bounds(const FrontEnd& front_end);
  void check_drained();
  void check_conviction(const ReplicaNews& death, RequestId convicted);
  void check_end();
  void collect();
  void violation(const std::string& what) { clients_.report(&Violations::other, what); }

  WorldConfig config_;
  Random random_;
  Shape shape_;
  std::vector<Job> jobs_;
  EventQueue queue_;
  Coordinator coordinator_;
  std::vector<std::unique_ptr<FrontEnd>> front_ends_;  // dead ones too
  std::vector<std::unique_ptr<Replica>> replicas_;     // of every epoch
  std::vector<Epoch> died_;                            // a replica's newest dead epoch
  std::set<int> removing_;
  ToyModel oracle_model_;
  Clients clients_;
  Digest trace_;
  Totals totals_;
  std::size_t arrived_ = 0;
  std::size_t retrying_ = 0;  // jobs that were refused and come again
  ClientId next_client_ = 0;
  bool over_ = false;
  Nanoseconds tick_at_ = 0;  // the planned tick; 0: none
};

Outcome run_world(const WorldConfig& config);

}  // namespace chorus::sim

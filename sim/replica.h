// One incarnation of a simulated engine process: the production scheduler, the toy model, and what has arrived for it.
// It lives in the world's clock: the world says when it receives, steps, stops and dies.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "base/clock.h"
#include "cluster/load_view.h"
#include "cluster/placement.h"
#include "cluster/router.h"
#include "sched/scheduler.h"
#include "testing/toy_pipeline.h"

namespace chorus::sim {

// What a replica tells the front end at the end of a step.
struct Frame {
  Placement from;
  std::vector<TokenEvent> events;
  LoadReport load;
};

class Replica {
 public:
  enum class State : std::uint8_t {
    loading,  // not ready yet
    running,
    stopped,  // SIGSTOP: what arrives waits, nothing is said, until it wakes
    dead,
  };

  Replica(Placement placement, const SchedulerConfig& config);

  Placement placement() const { return placement_; }
  void receive(RouterMessage message);
  // A step would do something.
  bool has_work() const;
  // Takes in what has arrived, gives the model as many plans as it takes, and completes the oldest.
  Frame step();

  // Nothing in it, every block free (CHECKs the scheduler's tables).
  bool is_clean() const;
  SchedulerStats stats() const { return scheduler_->stats(); }
  std::uint64_t most_in_flight() const { return most_in_flight_; }  // plans at a time, so far

  // The world's notes.
  State state = State::loading;
  bool unreachable = false;       // a kill does not reach it
  bool stepping = false;          // a step is being computed
  std::function<void()> held;     // what it would have said when it was stopped
  Nanoseconds link_in_free = 0;   // when the last message to it arrives: links keep their order
  Nanoseconds link_out_free = 0;  // when the last frame from it arrives
  std::uint64_t frames_sent = 0;
  std::uint64_t frames_arrived = 0;
  std::uint64_t frames_surviving = UINT64_MAX;  // those after it were lost with the process

 private:
  Placement placement_;
  std::int32_t kv_blocks_;
  std::int32_t plans_in_flight_max_;
  std::unique_ptr<Scheduler> scheduler_;
  ToyPipeline pipeline_;
  StepResult result_;
  std::vector<RouterMessage> inbox_;
  std::uint64_t submissions_ = 0;
  std::uint64_t steps_ = 0;
  std::uint64_t most_in_flight_ = 0;
};

ToyModel::Config toy_config(const SchedulerConfig& config);

}  // namespace chorus::sim

#include "replica.h"

#include <algorithm>
#include <utility>

namespace chorus::sim {
namespace {

constexpr std::uint64_t kStepsBetweenInvariantChecks = 32;

}  // namespace

ToyModel::Config toy_config(const SchedulerConfig& config) {
  ToyModel::Config toy;
  toy.kv_blocks = config.kv_blocks;
  toy.block_size = config.block_size;
  toy.vocab_size = config.vocab_size;
  toy.plans_in_flight_max = config.plans_in_flight_max;
  toy.kv_pools = config.kv_pools;
  toy.kv_pool_tokens = config.kv_pool_tokens;
  return toy;
}

Replica::Replica(Placement placement, const SchedulerConfig& config)
    : placement_(placement),
      kv_blocks_(config.kv_blocks),
      plans_in_flight_max_(config.plans_in_flight_max),
      scheduler_(make_scheduler(config)),
      pipeline_(toy_config(config)) {}

void Replica::receive(RouterMessage message) {
  inbox_.push_back(std::move(message));
}

bool Replica::has_work() const {
  return !inbox_.empty() || scheduler_->has_work();
}

Frame Replica::step() {
  for (RouterMessage& message : inbox_) {
    switch (message.kind) {
      case RouterMessage::Kind::add:
        ++submissions_;
        scheduler_->add(std::move(message.request));
        break;
      case RouterMessage::Kind::abort:
        scheduler_->abort(message.id);
        break;
      case RouterMessage::Kind::abort_choice:
        scheduler_->abort_choice(message.id, message.choice);
        break;
    }
  }
  inbox_.clear();
  Frame frame{placement_, {}, {}};
  if (scheduler_->has_work()) {
    while (scheduler_->plans_in_flight() < plans_in_flight_max_) {
      const StepPlan& plan = scheduler_->schedule();
      if (plan.rows == 0) break;
      pipeline_.submit(plan);
    }
    most_in_flight_ = std::max<std::uint64_t>(most_in_flight_, pipeline_.in_flight());
    if (scheduler_->plans_in_flight() > 0) pipeline_.collect(&result_);
    scheduler_->complete(result_, &frame.events);
  }
  if (++steps_ % kStepsBetweenInvariantChecks == 0) scheduler_->check_invariants();
  const SchedulerStats stats = scheduler_->stats();
  frame.load = {stats.waiting, stats.running, stats.kv_blocks_free, submissions_};
  return frame;
}

bool Replica::is_clean() const {
  scheduler_->check_invariants();
  const SchedulerStats stats = scheduler_->stats();
  return !scheduler_->has_work() && stats.waiting == 0 && stats.running == 0 &&
         stats.kv_blocks_free == static_cast<std::uint64_t>(kv_blocks_);
}

}  // namespace chorus::sim

#include "replica.h"

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
  return toy;
}

Replica::Replica(Placement placement, const SchedulerConfig& config)
    : placement_(placement),
      kv_blocks_(config.kv_blocks),
      scheduler_(make_scheduler(config)),
      model_(toy_config(config)) {}

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
    const StepPlan& plan = scheduler_->schedule();
    result_.sequences.clear();
    if (plan.rows > 0) model_.execute(plan, &result_);
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

// The plans in flight, in the order in which they were made. Each has its own storage, used again and again, so that a
// plan allocates nothing once its slot has grown. A sequence is in at most one of them.
#pragma once

#include <cstdint>
#include <vector>

#include "base/check.h"
#include "sched/sequence.h"
#include "sched/step_plan.h"

namespace chorus {

struct PlanSlot {
  StepPlan plan;
  // Parallel to plan.sequences. Null: it ended while the plan was in flight; its result is ignored.
  std::vector<Sequence*> sequences;
};

class PlanRing {
 public:
  explicit PlanRing(std::int32_t plans_max) : slots_(static_cast<std::size_t>(plans_max)) {}

  std::int32_t in_flight() const { return static_cast<std::int32_t>(in_flight_); }
  std::int32_t plans_max() const { return static_cast<std::int32_t>(slots_.size()); }

  // An empty plan to be filled with add(). It is not in flight before launch().
  PlanSlot& begin() {
    CHECK(in_flight_ < slots_.size(), "all {} plans are in flight: complete the oldest first", slots_.size());
    PlanSlot& slot = slots_[newest()];
    slot.plan.sequences.clear();
    slot.plan.ended.clear();
    slot.plan.rows = 0;
    slot.sequences.clear();
    return slot;
  }
  SequencePlan& add(Sequence* sequence) {
    PlanSlot& slot = slots_[newest()];
    sequence->plan_slot = static_cast<std::int32_t>(newest());
    sequence->plan_index = slot.sequences.size();
    slot.sequences.push_back(sequence);
    return slot.plan.sequences.emplace_back();
  }
  void launch() { ++in_flight_; }

  // The oldest plan, which is in flight no more, nor are its sequences. Valid until the next begin().
  PlanSlot& land() {
    CHECK(in_flight_ > 0, "no plan is in flight");
    PlanSlot& slot = slots_[oldest_];
    oldest_ = (oldest_ + 1) % slots_.size();
    --in_flight_;
    for (Sequence* sequence : slot.sequences) {
      if (sequence != nullptr) sequence->plan_slot = -1;
    }
    return slot;
  }

  // The sequence ends, in flight or not.
  void forget(Sequence* sequence) {
    if (!sequence->in_flight()) return;
    slots_[static_cast<std::size_t>(sequence->plan_slot)].sequences[sequence->plan_index] = nullptr;
    sequence->plan_slot = -1;
  }

  // The i-th oldest plan in flight.
  const PlanSlot& at(std::int32_t i) const { return slots_[(oldest_ + static_cast<std::size_t>(i)) % slots_.size()]; }

 private:
  std::size_t newest() const { return (oldest_ + in_flight_) % slots_.size(); }

  std::vector<PlanSlot> slots_;
  std::size_t oldest_ = 0;
  std::size_t in_flight_ = 0;
};

}  // namespace chorus

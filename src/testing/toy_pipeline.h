// The toy model as an executor takes plans: several in flight, collected in order. Checks what an executor may rely on:
// no sequence is in two plans in flight, none comes again after the plan that told its end, and each end is told once.
#pragma once

#include <utility>
#include <vector>

#include "testing/toy_model.h"

namespace chorus {

class ToyPipeline {
 public:
  explicit ToyPipeline(const ToyModel::Config& config)
      : model_(config), ring_(static_cast<std::size_t>(config.plans_in_flight_max)) {}

  const ToyModel& model() const { return model_; }
  std::size_t in_flight() const { return in_flight_; }
  // Planned sequences whose end has not been told.
  std::size_t known() const { return known_; }

  void submit(const StepPlan& plan) {
    CHECK(in_flight_ < ring_.size(), "{} plans in flight", in_flight_);
    for (const std::uint64_t sequence : plan.ended) {
      State& state = state_of(sequence);
      CHECK(state.known && !state.ended, "sequence {} has ended twice, or was never planned", sequence);
      state.ended = true;
      --known_;
    }
    Submitted& submitted = ring_[(oldest_ + in_flight_++) % ring_.size()];
    submitted.sequences.clear();
    for (const SequencePlan& planned : plan.sequences) {
      State& state = state_of(planned.sequence);
      CHECK(!state.ended && !state.in_flight, "sequence {} has ended or is in flight", planned.sequence);
      known_ += state.known ? 0 : 1;
      state.known = state.in_flight = true;
      submitted.sequences.push_back(planned.sequence);
    }
    model_.execute(plan, &submitted.result);
  }

  void collect(StepResult* result) {
    CHECK(in_flight_ > 0, "nothing is in flight");
    Submitted& submitted = ring_[oldest_];
    oldest_ = (oldest_ + 1) % ring_.size();
    --in_flight_;
    for (const std::uint64_t sequence : submitted.sequences) state_of(sequence).in_flight = false;
    std::swap(*result, submitted.result);
  }

  // Of the newest plan in flight, to be changed by tests.
  StepResult& newest() { return ring_[(oldest_ + in_flight_ - 1) % ring_.size()].result; }

 private:
  struct State {
    bool known = false, in_flight = false, ended = false;
  };
  struct Submitted {
    std::vector<std::uint64_t> sequences;
    StepResult result;
  };

  State& state_of(std::uint64_t sequence) {
    if (sequence >= states_.size()) states_.resize(static_cast<std::size_t>(sequence) + 1);
    return states_[static_cast<std::size_t>(sequence)];
  }

  ToyModel model_;
  std::vector<Submitted> ring_;
  std::size_t oldest_ = 0, in_flight_ = 0;
  std::vector<State> states_;  // by sequence: ids count up
  std::size_t known_ = 0;
};

}  // namespace chorus

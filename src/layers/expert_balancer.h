// Keeps the experts of a model balanced over the ranks of an expert-parallel group while it serves: watches the loads,
// and every step_interval steps moves experts to where they do best. Tokens do not change by it.
#pragma once

#include <vector>

#include "base/progress.h"
#include "config/eplb_config.h"
#include "layers/expert_load_window.h"
#include "layers/expert_slots.h"
#include "parallel/group.h"

namespace chorus {

class ExpertBalancer {
 public:
  // Expert groups of the model (1: none) and nodes that the ranks are on, equally many on each.
  struct Site {
    int groups = 1;
    int nodes = 1;
  };
  // `slots` outlives the balancer; all its layers are declared.
  ExpertBalancer(const EplbConfig& config, const Site& site, ExpertSlots& slots);

  // After every step, on every rank of the group, also on one that had no rows. On the step_interval-th it adds the
  // windows of all ranks (as integers: one exchange of 8 * layers * experts bytes), computes the new placements, which
  // are the same on every rank, and moves the experts of the layers that become more even by it; `progress` moves with
  // each of these layers.
  Result<void> finish_step(Group& ep, const Progress& progress = {});

  int rearrangements() const { return rearrangements_; }

 private:
  Result<void> rearrange(Group& ep, const Progress& progress);

  EplbConfig config_;
  Site site_;
  ExpertSlots& slots_;
  ExpertLoadWindow window_;
  int steps_ = 0;  // since the last rearrangement
  int rearrangements_ = 0;
};

}  // namespace chorus

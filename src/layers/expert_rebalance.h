// Where experts should live, given how many tokens each had: replicate the busy ones, then pack them so that all ranks
// have equally much to do. The published algorithm of DeepSeek's "Expert Parallelism Load Balancer"
// (https://github.com/deepseek-ai/EPLB, described in "DeepSeek-V3 technical report", 2024, section 3.4.1). Pure: every
// rank computes the same answer from the same loads. Equal loads are taken in ascending index.
#pragma once

#include <span>
#include <vector>

#include "layers/expert_placement.h"

namespace chorus {

// weights.size() objects into `packs` packs of equally many, the packs' weights balanced by the greedy rule:
// the heaviest object first, always into the lightest pack that has room.
struct Packing {
  std::vector<int> pack;      // of each object
  std::vector<int> position;  // of each object within its pack
};
Packing balanced_packing(std::span<const double> weights, int packs);

// The expert that each of `physical` replicas is of: one each, in order, then one more at a time for the expert with
// the largest load per replica.
std::vector<int> replicate_experts(std::span<const double> loads, int physical);

// `physical` (a multiple of `ranks`) slots on `ranks` ranks of `nodes` nodes. Experts come in `groups` equal groups,
// which a token's choices are confined to in some models. If the groups divide by the nodes, whole groups are packed on
// nodes, then replicas are made and packed within each node; otherwise over all ranks at once.
struct RebalanceShape {
  int physical = 0;
  int groups = 1;
  int nodes = 1;
  int ranks = 1;
};
ExpertPlacement rebalance_experts(std::span<const double> loads, const RebalanceShape& shape);

// The same placement up to the order of the slots within each rank: an expert that stays on a rank keeps its slot, so
// that its weights need not move. Both have equally many slots on every rank.
ExpertPlacement keep_slots(const ExpertPlacement& before, const ExpertPlacement& after);

// Mean over ranks / largest of the ranks' loads: 1 when even, 1 / ranks when one rank does everything; 1 without load.
// The load of an expert is shared evenly by its replicas.
double balancedness(std::span<const double> loads, const ExpertPlacement& placement);

}  // namespace chorus

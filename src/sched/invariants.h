// What always holds between two steps, as checks for tests and simulation.
#pragma once

#include <set>
#include <vector>

#include "sched/block_manager.h"
#include "sched/plan_ring.h"
#include "sched/scheduler.h"
#include "sched/sequence.h"

namespace chorus {

// CHECKs: running sequences in rank order and within max_num_seqs, each with blocks for what it has computed; waiting
// ones without a block; a block has as many users as tables name it; a block in two tables is at one index in both,
// full, computed by both and holds the same tokens after the same prefix; a block is of the pool that its index asks
// for; every other block is free, in its pool.
void check_scheduler_invariants(const SchedulerConfig& config, const ByRank& by_rank,
                                const std::vector<Sequence*>& running, const std::set<Sequence*, ByRank>& waiting,
                                const BlockManager& blocks);

// CHECKs: a running sequence is in at most one plan in flight and knows which; it has its own blocks for the rows that
// are being computed, and what it had computed has not moved.
void check_plan_invariants(const SchedulerConfig& config, const std::vector<Sequence*>& running, const PlanRing& plans,
                           const BlockManager& blocks);

}  // namespace chorus

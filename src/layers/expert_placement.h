// Which rank holds which expert. Every rank has some *slots*; a slot holds the weights of one expert, and an expert
// that is in several slots has replicas. Pure values: the same arguments give the same placement on every rank.
//
// Where an expert runs changes no bit of a token's result (design.md section 1, rule 5), so any replica may be chosen;
// the choice below only spreads the load.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/result.h"

namespace chorus {

enum class ExpertPlacementStrategy : std::uint8_t {
  linear,       // rank 0 has the first experts, rank 1 the next
  round_robin,  // expert e is on rank e mod ranks
};

class ExpertPlacement {
 public:
  ExpertPlacement() = default;
  // `experts_of_rank[r]`: what the slots of rank r hold. Every expert in [0, experts) is in at least one.
  ExpertPlacement(int experts, const std::vector<std::vector<int>>& experts_of_rank);
  // Slots for every expert and `redundant` replicas (of experts 0, 1, ...), which differ by at most one between the
  // ranks.
  static ExpertPlacement create(ExpertPlacementStrategy strategy, int experts, int ranks, int redundant);

  int experts() const { return static_cast<int>(first_replica_.size()) - 1; }
  int ranks() const { return static_cast<int>(first_slot_.size()) - 1; }
  int slots() const { return static_cast<int>(expert_of_slot_.size()); }  // of all ranks

  // Slots are numbered through, rank by rank: rank r has [first_slot(r), first_slot(r + 1)).
  int first_slot(int rank) const { return first_slot_[static_cast<std::size_t>(rank)]; }
  std::span<const int> experts_of(int rank) const;
  int expert_of(int slot) const { return expert_of_slot_[static_cast<std::size_t>(slot)]; }
  int rank_of(int slot) const { return rank_of_slot_[static_cast<std::size_t>(slot)]; }
  // The slots that hold an expert, ascending; at least one.
  std::span<const int> replicas(int expert) const;
  // The slot that serves `expert` for one row. `row_key`: a number of the row, see replica_key().
  int slot_for(int expert, std::uint64_t row_key) const;

  bool operator==(const ExpertPlacement& other) const {
    return first_slot_ == other.first_slot_ && expert_of_slot_ == other.expert_of_slot_;
  }

 private:
  std::vector<int> first_slot_, expert_of_slot_, rank_of_slot_;
  std::vector<int> first_replica_, replicas_;  // of expert e: replicas_[first_replica_[e], first_replica_[e + 1])
};

// Spreads rows over replicas: a hash of the row's index and its home rank, so that ranks with one row each do not all
// choose the same replica.
std::uint64_t replica_key(int home_rank, std::int64_t row);

// Whether `experts` can be spread over `ranks` with these redundant experts and moved between them: slots are of equal
// number on every rank then. The message says how many redundant experts would do.
Result<void> check_expert_balancing(int experts, int ranks, int redundant);

}  // namespace chorus

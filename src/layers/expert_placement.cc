#include "layers/expert_placement.h"

#include <algorithm>

#include "base/check.h"

namespace chorus {

ExpertPlacement::ExpertPlacement(int experts, const std::vector<std::vector<int>>& experts_of_rank) {
  first_slot_.push_back(0);
  for (std::size_t rank = 0; rank < experts_of_rank.size(); ++rank) {
    for (const int expert : experts_of_rank[rank]) {
      CHECK(expert >= 0 && expert < experts, "expert {} of {}", expert, experts);
      expert_of_slot_.push_back(expert);
      rank_of_slot_.push_back(static_cast<int>(rank));
    }
    first_slot_.push_back(slots());
  }
  first_replica_.assign(static_cast<std::size_t>(experts) + 1, 0);
  for (const int expert : expert_of_slot_) ++first_replica_[static_cast<std::size_t>(expert) + 1];
  for (std::size_t e = 0; e < static_cast<std::size_t>(experts); ++e) {
    CHECK(first_replica_[e + 1] > 0, "expert {} is in no slot", e);
    first_replica_[e + 1] += first_replica_[e];
  }
  replicas_.resize(expert_of_slot_.size());
  std::vector<int> next(first_replica_.begin(), first_replica_.end() - 1);
  for (int slot = 0; slot < slots(); ++slot) {
    replicas_[static_cast<std::size_t>(next[static_cast<std::size_t>(expert_of(slot))]++)] = slot;
  }
}

ExpertPlacement ExpertPlacement::create(ExpertPlacementStrategy strategy, int experts, int ranks, int redundant) {
  CHECK(experts > 0 && ranks > 0 && redundant >= 0, "{} experts and {} more on {} ranks", experts, redundant, ranks);
  std::vector<std::vector<int>> experts_of_rank(static_cast<std::size_t>(ranks));
  const int total = experts + redundant, share = total / ranks, larger = total % ranks;
  const int in_larger = larger * (share + 1);  // the first `larger` ranks have one slot more
  for (int i = 0; i < total; ++i) {
    const int linear = i < in_larger ? i / (share + 1) : larger + (i - in_larger) / std::max(share, 1);
    const int rank = strategy == ExpertPlacementStrategy::linear ? linear : i % ranks;
    experts_of_rank[static_cast<std::size_t>(rank)].push_back(i % experts);
  }
  return ExpertPlacement(experts, experts_of_rank);
}

std::span<const int> ExpertPlacement::experts_of(int rank) const {
  const auto first = static_cast<std::size_t>(first_slot(rank));
  return std::span(expert_of_slot_).subspan(first, static_cast<std::size_t>(first_slot(rank + 1)) - first);
}

std::span<const int> ExpertPlacement::replicas(int expert) const {
  const auto at = static_cast<std::size_t>(expert);
  const auto first = static_cast<std::size_t>(first_replica_[at]);
  return std::span(replicas_).subspan(first, static_cast<std::size_t>(first_replica_[at + 1]) - first);
}

int ExpertPlacement::slot_for(int expert, std::uint64_t row_key) const {
  const auto slots = replicas(expert);
  return slots[static_cast<std::size_t>(row_key % slots.size())];
}

// The finaliser of SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014, figure
// 17).
std::uint64_t replica_key(int home_rank, std::int64_t row) {
  std::uint64_t z =
      (static_cast<std::uint64_t>(home_rank) << 40) + static_cast<std::uint64_t>(row) + 0x9e3779b97f4a7c15U;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
  return z ^ (z >> 31);
}

Result<void> check_expert_balancing(int experts, int ranks, int redundant) {
  const int over = (experts + redundant) % ranks;
  if (over == 0) return {};
  return fail(ErrorCode::invalid_argument,
              "--eplb-config: {} experts and num_redundant_experts {} do not fill {} expert-parallel ranks evenly; "
              "give num_redundant_experts {}",
              experts, redundant, ranks, redundant + ranks - over);
}

}  // namespace chorus

#include "layers/expert_rebalance.h"

#include <algorithm>
#include <numeric>

#include "base/check.h"

namespace chorus {
namespace {

std::size_t at(int index) {
  return static_cast<std::size_t>(index);
}

// The experts of one node's slots, rank by rank: `experts` live there, `physical` slots on `ranks` ranks.
std::vector<std::vector<int>> fill_node(std::span<const double> loads, const std::vector<int>& experts, int physical,
                                        int ranks) {
  std::vector<double> own;
  for (const int expert : experts) own.push_back(loads[at(expert)]);
  const std::vector<int> replicas = replicate_experts(own, physical);
  std::vector<int> count(experts.size(), 0);
  for (const int expert : replicas) ++count[at(expert)];
  std::vector<double> share;
  for (const int expert : replicas) share.push_back(own[at(expert)] / count[at(expert)]);

  const Packing packing = balanced_packing(share, ranks);
  std::vector<std::vector<int>> filled(at(ranks), std::vector<int>(at(physical / ranks)));
  for (std::size_t i = 0; i < replicas.size(); ++i)
    filled[at(packing.pack[i])][at(packing.position[i])] = experts[at(replicas[i])];
  return filled;
}

// The experts of each node: groups are packed by their load.
std::vector<std::vector<int>> experts_of_nodes(std::span<const double> loads, int groups, int nodes) {
  const std::size_t group_size = loads.size() / at(groups);
  std::vector<double> group_loads(at(groups));
  for (std::size_t g = 0; g < group_loads.size(); ++g) {
    const auto members = loads.subspan(g * group_size, group_size);
    group_loads[g] = std::accumulate(members.begin(), members.end(), 0.0);
  }
  const Packing packing = balanced_packing(group_loads, nodes);
  std::vector<std::vector<int>> experts(at(nodes), std::vector<int>(loads.size() / at(nodes)));
  for (std::size_t g = 0; g < group_loads.size(); ++g) {
    auto& node = experts[at(packing.pack[g])];
    for (std::size_t i = 0; i < group_size; ++i)
      node[at(packing.position[g]) * group_size + i] = static_cast<int>(g * group_size + i);
  }
  return experts;
}

}  // namespace

Packing balanced_packing(std::span<const double> weights, int packs) {
  const auto objects = static_cast<int>(weights.size());
  CHECK(packs > 0 && objects % packs == 0, "{} objects in {} packs", objects, packs);
  const int room = objects / packs;
  std::vector<int> order(weights.size());
  std::iota(order.begin(), order.end(), 0);
  // With one object a pack there is nothing to balance: each keeps its place.
  if (room > 1) std::ranges::stable_sort(order, [&](int a, int b) { return weights[at(a)] > weights[at(b)]; });

  Packing packing{std::vector<int>(weights.size()), std::vector<int>(weights.size())};
  std::vector<double> packed(at(packs), 0);
  std::vector<int> filled(at(packs), 0);
  for (std::size_t i = 0; i < order.size(); ++i) {
    int lightest = room > 1 ? -1 : order[i];
    for (int p = 0; room > 1 && p < packs; ++p) {
      if (filled[at(p)] < room && (lightest < 0 || packed[at(p)] < packed[at(lightest)])) lightest = p;
    }
    packing.pack[at(order[i])] = lightest;
    packing.position[at(order[i])] = filled[at(lightest)]++;
    packed[at(lightest)] += weights[at(order[i])];
  }
  return packing;
}

std::vector<int> replicate_experts(std::span<const double> loads, int physical) {
  CHECK(at(physical) >= loads.size(), "{} slots for {} experts", physical, loads.size());
  std::vector<int> replicas(loads.size());
  std::iota(replicas.begin(), replicas.end(), 0);
  std::vector<int> count(loads.size(), 1);
  while (replicas.size() < at(physical)) {
    std::size_t busiest = 0;
    for (std::size_t e = 1; e < loads.size(); ++e) {
      if (loads[e] / count[e] > loads[busiest] / count[busiest]) busiest = e;
    }
    replicas.push_back(static_cast<int>(busiest));
    ++count[busiest];
  }
  return replicas;
}

ExpertPlacement rebalance_experts(std::span<const double> loads, const RebalanceShape& shape) {
  const bool grouped = shape.groups % shape.nodes == 0;
  const int groups = grouped ? shape.groups : 1, nodes = grouped ? shape.nodes : 1;
  CHECK(loads.size() % at(groups) == 0 && shape.ranks % nodes == 0 && shape.physical % shape.ranks == 0,
        "{} experts in {} groups, {} slots on {} ranks of {} nodes", loads.size(), groups, shape.physical, shape.ranks,
        nodes);
  std::vector<std::vector<int>> experts_of_rank;
  for (const auto& experts : experts_of_nodes(loads, groups, nodes)) {
    for (auto& rank : fill_node(loads, experts, shape.physical / nodes, shape.ranks / nodes))
      experts_of_rank.push_back(std::move(rank));
  }
  return ExpertPlacement(static_cast<int>(loads.size()), experts_of_rank);
}

ExpertPlacement keep_slots(const ExpertPlacement& before, const ExpertPlacement& after) {
  std::vector<std::vector<int>> experts_of_rank;
  for (int rank = 0; rank < after.ranks(); ++rank) {
    const auto old = before.experts_of(rank);
    const auto wanted = after.experts_of(rank);
    CHECK(old.size() == wanted.size(), "rank {} has {} slots, not {}", rank, old.size(), wanted.size());
    std::vector<int> slots(old.size(), -1), moving;
    for (const int expert : wanted) {
      std::size_t slot = 0;
      while (slot < old.size() && (old[slot] != expert || slots[slot] >= 0)) ++slot;
      if (slot < old.size()) {
        slots[slot] = expert;
      } else {
        moving.push_back(expert);
      }
    }
    auto next = moving.begin();
    for (int& slot : slots) {
      if (slot < 0) slot = *next++;
    }
    experts_of_rank.push_back(std::move(slots));
  }
  return ExpertPlacement(after.experts(), experts_of_rank);
}

double balancedness(std::span<const double> loads, const ExpertPlacement& placement) {
  double largest = 0, total = 0;
  for (int rank = 0; rank < placement.ranks(); ++rank) {
    double load = 0;
    for (const int expert : placement.experts_of(rank))
      load += loads[at(expert)] / static_cast<double>(placement.replicas(expert).size());
    largest = std::max(largest, load);
    total += load;
  }
  return largest > 0 ? total / placement.ranks() / largest : 1;
}

}  // namespace chorus

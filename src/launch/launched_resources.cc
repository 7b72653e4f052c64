#include "launch/launched_resources.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <string_view>
#include <utility>

namespace chorus {
namespace {

// node_identity() begins with the machine's.
std::string_view machine_of(const Whereabouts& rank) {
  const std::string_view node(rank.node.data());
  return node.substr(0, node.find(' '));
}

bool share_cores(const Whereabouts& a, const Whereabouts& b) {
  if (machine_of(a) != machine_of(b)) return false;
  const auto overlap = [](std::uint64_t mine, std::uint64_t theirs) { return (mine & theirs) != 0; };
  return std::inner_product(a.cpus.begin(), a.cpus.end(), b.cpus.begin(), false, std::logical_or<>(), overlap);
}

}  // namespace

Whereabouts make_whereabouts(const std::string& node_identity, const NodeResources& node) {
  Whereabouts own;
  node_identity.copy(own.node.data(), own.node.size() - 1);
  for (const int cpu : node.cpus) {
    const auto bit = static_cast<std::size_t>(cpu);
    if (bit < own.cpus.size() * 64) own.cpus[bit / 64] |= std::uint64_t{1} << bit % 64;
  }
  return own;
}

Result<RankResources> share_node(const EngineConfig& config, const NodeResources& node,
                                 std::span<const Whereabouts> ranks, int rank) {
  const Whereabouts& own = ranks[static_cast<std::size_t>(rank)];
  const auto is_here = [&](const Whereabouts& other) { return other.node == own.node; };
  const auto shares = [&](const Whereabouts& other) { return share_cores(own, other); };
  RankResources resources;
  resources.ranks_here = static_cast<int>(std::ranges::count_if(ranks, is_here));
  const int sharing = std::max(1, static_cast<int>(std::ranges::count_if(ranks, shares)));
  int cores = static_cast<int>(node.cpus.size()) / sharing;
  if (node.cpu_limit > 0) cores = std::min(cores, static_cast<int>(std::ceil(node.cpu_limit)) / resources.ranks_here);
  resources.threads = config.threads > 0 ? config.threads : std::max(1, cores);
  if (config.cpu_threads_bind == "auto" || config.cpu_threads_bind == "none") return resources;
  EngineConfig here = config;
  here.parallel.launched_workers = resources.ranks_here;
  std::vector<std::string> warnings;
  CHORUS_TRY(auto sets, cpu_sets_per_worker(here, node, &warnings));
  const auto before = std::ranges::count_if(ranks.first(static_cast<std::size_t>(rank)), is_here);
  resources.cpus = std::move(sets[static_cast<std::size_t>(before)]);
  if (config.threads == 0) resources.threads = static_cast<int>(resources.cpus.size());
  return resources;
}

}  // namespace chorus

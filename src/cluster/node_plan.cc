#include "cluster/node_plan.h"

#include <algorithm>
#include <cmath>

namespace chorus {
namespace {

int room_of(const NodePlanRequest& request, const PlanNode& node) {
  return static_cast<int>(std::min(std::floor(node.amount / request.amount_per_rank), 1e6));
}

std::string list_of(const NodePlanRequest& request, const std::vector<PlanNode>& nodes) {
  std::string text;
  for (const PlanNode& node : nodes) {
    text += fmt::format("{}{} has {} {} ({} free)", text.empty() ? "" : ", ", node.address, request.resource,
                        node.amount, node.amount_free);
  }
  return text.empty() ? "no node" : text;
}

Error too_small(const NodePlanRequest& request, const std::vector<PlanNode>& nodes, int placed) {
  const bool strict = request.strategy == NodePlanRequest::Strategy::strict;
  return fail(
      ErrorCode::resource_exhausted,
      "the Ray cluster has room for {} of {} data parallel ranks, each with {} {} on one node{}: {}; add nodes, ask "
      "for less "
      "(--data-parallel-size, --threads){}",
      placed, request.ranks, request.resource, request.amount_per_rank,
      strict ? fmt::format(", and {} ranks to a node (--data-parallel-size-local)", request.ranks_per_node) : "",
      list_of(request, nodes), strict ? ", or set CHORUS_RAY_DP_PACK_STRATEGY=fill" : "");
}

}  // namespace

Result<std::vector<std::string>> plan_nodes(const NodePlanRequest& request, const std::vector<PlanNode>& nodes) {
  const auto ranks = static_cast<std::size_t>(request.ranks);
  std::vector<std::string> plan;
  for (const PlanNode& node : nodes) {
    const int left = request.ranks - static_cast<int>(plan.size());
    int taken = std::min(room_of(request, node), left);
    if (request.strategy == NodePlanRequest::Strategy::strict) {
      const int wanted = std::min(request.ranks_per_node, left);
      taken = taken < wanted ? 0 : wanted;
    }
    plan.insert(plan.end(), static_cast<std::size_t>(taken), node.address);
  }
  if (plan.size() < ranks) return too_small(request, nodes, static_cast<int>(plan.size()));
  // With fill every node that has room is as good as another, also when something else has taken the first one's.
  if (request.strategy == NodePlanRequest::Strategy::fill) plan.assign(ranks, "");
  return plan;
}

int threads_that_fit(NodePlanRequest request, int workers, const std::vector<PlanNode>& nodes) {
  double most = 1;
  for (const PlanNode& node : nodes) most = std::max(most, node.amount);
  for (int threads = static_cast<int>(std::min(most, 4096.0)) / workers; threads > 1; --threads) {
    request.amount_per_rank = threads * workers;
    if (plan_nodes(request, nodes).ok()) return threads;
  }
  return 1;
}

}  // namespace chorus

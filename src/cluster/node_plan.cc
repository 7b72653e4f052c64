#include "cluster/node_plan.h"

#include <algorithm>
#include <cmath>

namespace chorus {
namespace {

using Strategy = NodePlanRequest::Strategy;

constexpr double room_max = 1e6;

int room_of(const PlanNode& node, double amount) {
  return static_cast<int>(std::min(std::floor(node.amount / amount), room_max));
}

std::string list_of(const NodePlanRequest& request, const std::vector<PlanNode>& nodes) {
  std::string text;
  for (const PlanNode& node : nodes) {
    text += fmt::format("{}{} has {} {} ({} free)", text.empty() ? "" : ", ", node.address, request.resource,
                        node.amount, node.amount_free);
  }
  return text.empty() ? "no node" : text;
}

// A strategy that may find room where this one does not.
const char* other_strategy(const NodePlanRequest& request) {
  const bool alone = request.workers_per_rank == 1;
  if (request.strategy == Strategy::strict) {
    return alone ? ", or set CHORUS_RAY_DP_PACK_STRATEGY=fill" : ", or set CHORUS_RAY_DP_PACK_STRATEGY=fill or span";
  }
  return alone || request.strategy == Strategy::span ? "" : ", or set CHORUS_RAY_DP_PACK_STRATEGY=span";
}

// `what` there is room for `placed` of `wanted` of: "data parallel ranks, each with CPU 2 on one node".
Error too_small(const NodePlanRequest& request, const std::vector<PlanNode>& nodes, int placed, int wanted,
                const std::string& what) {
  return fail(ErrorCode::resource_exhausted,
              "the Ray cluster has room for {} of {} {}: {}; add nodes, ask for less (--data-parallel-size, "
              "--threads){}",
              placed, wanted, what, list_of(request, nodes), other_strategy(request));
}

Result<std::vector<std::string>> plan_workers(const NodePlanRequest& request, const std::vector<PlanNode>& nodes) {
  const int wanted = request.ranks * request.workers_per_rank;
  int room = 0;
  for (const PlanNode& node : nodes) room += std::min(room_of(node, request.amount_per_worker), wanted - room);
  if (room < wanted) {
    return too_small(request, nodes, room, wanted,
                     fmt::format("workers of {} data parallel ranks, each with {} {}", request.ranks, request.resource,
                                 request.amount_per_worker));
  }
  return std::vector<std::string>(static_cast<std::size_t>(request.ranks));
}

}  // namespace

Result<std::vector<std::string>> plan_nodes(const NodePlanRequest& request, const std::vector<PlanNode>& nodes) {
  if (request.strategy == Strategy::span) return plan_workers(request, nodes);
  const auto ranks = static_cast<std::size_t>(request.ranks);
  std::vector<std::string> plan;
  for (const PlanNode& node : nodes) {
    const int left = request.ranks - static_cast<int>(plan.size());
    int taken = std::min(room_of(node, request.amount_per_rank()), left);
    if (request.strategy == Strategy::strict) {
      const int wanted = std::min(request.ranks_per_node, left);
      taken = taken < wanted ? 0 : wanted;
    }
    plan.insert(plan.end(), static_cast<std::size_t>(taken), node.address);
  }
  if (plan.size() < ranks) {
    const bool strict = request.strategy == Strategy::strict;
    return too_small(
        request, nodes, static_cast<int>(plan.size()), request.ranks,
        fmt::format("data parallel ranks, each with {} {} on one node{}", request.resource, request.amount_per_rank(),
                    strict
                        ? fmt::format(", and {} ranks to a node (--data-parallel-size-local)", request.ranks_per_node)
                        : ""));
  }
  // With fill every node that has room is as good as another, also when something else has taken the first one's.
  if (request.strategy == Strategy::fill) plan.assign(ranks, "");
  return plan;
}

int threads_that_fit(NodePlanRequest request, const std::vector<PlanNode>& nodes) {
  double most = 1;
  for (const PlanNode& node : nodes) most = std::max(most, node.amount);
  const int workers = request.strategy == Strategy::span ? 1 : request.workers_per_rank;
  for (int threads = static_cast<int>(std::min(most, 4096.0)) / workers; threads > 1; --threads) {
    request.amount_per_worker = threads;
    if (plan_nodes(request, nodes).ok()) return threads;
  }
  return 1;
}

int workers_on(const NodePlanRequest& request, const PlanNode& node) {
  if (request.strategy == Strategy::span) {
    return std::min(room_of(node, request.amount_per_worker), request.ranks * request.workers_per_rank);
  }
  return std::min(room_of(node, request.amount_per_rank()), request.ranks) * request.workers_per_rank;
}

}  // namespace chorus

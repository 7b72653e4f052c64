// Which nodes of a cluster take the replicas at their start, as vLLM's VLLM_RAY_DP_PACK_STRATEGY has it. Pure.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"

namespace chorus {

struct PlanNode {
  std::string address;
  double amount = 0;       // of the resource that a worker needs, such as CPUs
  double amount_free = 0;  // at present
};

struct NodePlanRequest {
  // strict: a node takes ranks_per_node replicas (the last one what is left) or none. fill: wherever there is room.
  // span: the same for each worker of a replica by itself.
  enum class Strategy : unsigned char { strict, fill, span };
  Strategy strategy = Strategy::strict;
  int ranks = 1;
  int ranks_per_node = 1;
  int workers_per_rank = 1;
  double amount_per_worker = 1;
  std::string resource = "CPU";
  double amount_per_rank() const { return workers_per_rank * amount_per_worker; }
};

// By rank: the address of the node that is to take it; empty: any, or several. Nodes come in their order here. What is
// in use now counts as there: whoever uses it may be about to end. Error (resource_exhausted): what was asked, and what
// there is.
Result<std::vector<std::string>> plan_nodes(const NodePlanRequest& request, const std::vector<PlanNode>& nodes);

// The most threads per worker with which the plan works when each has its own CPU; 1 if none does.
int threads_that_fit(NodePlanRequest request, const std::vector<PlanNode>& nodes);

// How many workers the node may have to hold at once.
int workers_on(const NodePlanRequest& request, const PlanNode& node);

}  // namespace chorus

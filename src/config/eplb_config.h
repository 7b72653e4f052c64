// How experts are balanced over ranks while serving (--eplb-config): the fields of vLLM's EPLBConfig. A plain value.
#pragma once

namespace chorus {

struct EplbConfig {
  int window_size = 1000;         // steps whose loads count
  int step_interval = 3000;       // steps between two rearrangements
  int num_redundant_experts = 0;  // replicas on top of one slot an expert, over all ranks
  bool log_balancedness = false;  // a line at every rearrangement
};

}  // namespace chorus

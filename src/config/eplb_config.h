// How experts are balanced over ranks while serving (--eplb-config): the fields of vLLM's EPLBConfig. A plain value.
#pragma once

#include <string>

#include "base/result.h"

namespace chorus {

struct EplbConfig {
  int window_size = 1000;         // steps whose loads count
  int step_interval = 3000;       // steps between two rearrangements
  int num_redundant_experts = 0;  // replicas on top of one slot an expert, over all ranks
  bool log_balancedness = false;  // a line at every rearrangement
};

// From a JSON object; empty text gives the defaults. Errors name the field.
Result<EplbConfig> parse_eplb_config(const std::string& text);

}  // namespace chorus

// How many layers each pipeline stage has.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"

namespace chorus {

// `given`: "5,4,4" (--pp-layer-partition), or empty: balanced. Where they do not divide, the last
// stage, which also has the output matrix, and then the first, which has the embedding, get no extra layer as long as
// others can take it. Errors: not a number a stage, or not `layers` in all; more stages than layers.
Result<std::vector<int>> pipeline_partition(int layers, int stages, const std::string& given);

}  // namespace chorus

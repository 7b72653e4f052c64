// A recorded load: when requests came, and how long they were.
#pragma once

#include <cstdint>
#include <vector>

#include "base/result.h"
#include "bench/serve_dataset.h"

namespace chorus {

struct TraceEntry {
  double at_s = 0;  // after the trace's beginning
  int input_len = 0, output_len = 0;
  std::vector<std::uint64_t> hashes;  // one a chunk of the prompt; none: the trace does not tell
};

// The formats of load_dataset(); at most options.num_prompts entries, in the order of their times. invalid_argument
// names the line.
Result<std::vector<TraceEntry>> read_trace_file(const DatasetOptions& options);

}  // namespace chorus

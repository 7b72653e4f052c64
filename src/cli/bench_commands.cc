#include "cli/bench_commands.h"

#include "cli/commands.h"

namespace chorus {
namespace {

std::function<Result<int>()> declare_bench_serve(Options& options) {
  options.ignore_the_rest();
  return []() -> Result<int> {
    return fail(ErrorCode::invalid_argument,
                "bench serve is not in this release, which has no server: measure offline with bench throughput, "
                "latency or scaling");
  };
}

}  // namespace

std::vector<Command> bench_commands() {
  return {
      {"throughput", "all prompts at once: requests and tokens per second", declare_bench_throughput},
      {"latency", "one batch at a time: prefill time, time per output token", declare_bench_latency},
      {"scaling", "the same work at several data-parallel sizes, with efficiency", declare_bench_scaling},
      {"serve", "not in this release", declare_bench_serve},
  };
}

}  // namespace chorus

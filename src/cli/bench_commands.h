// The subcommands of bench, each in its own file.
#pragma once

#include <functional>

#include "base/result.h"
#include "cli/options.h"

namespace chorus {

std::function<Result<int>()> declare_bench_throughput(Options& options);
std::function<Result<int>()> declare_bench_latency(Options& options);
std::function<Result<int>()> declare_bench_scaling(Options& options);

}  // namespace chorus

// The subcommands, each in its own file.
#pragma once

#include <functional>

#include "base/result.h"
#include "cli/options.h"

namespace chorus {

std::function<Result<int>()> declare_generate(Options& options);
std::function<Result<int>()> declare_serve(Options& options);
std::function<Result<int>()> declare_chat(Options& options);
std::function<Result<int>()> declare_complete(Options& options);
std::function<Result<int>()> declare_ctl(Options& options);
std::function<Result<int>()> declare_run(Options& options);
std::vector<Command> bench_commands();  // throughput, latency, scaling, kernels, serve
std::function<Result<int>()> declare_bench_serve(Options& options);
std::function<Result<int>()> declare_tokenize(Options& options);
std::function<Result<int>()> declare_env(Options& options);
std::function<Result<int>()> declare_inspect(Options& options);

}  // namespace chorus

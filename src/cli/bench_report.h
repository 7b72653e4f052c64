// What the subcommands of chorus bench share: how a run is followed, and where its result goes.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "bench/workload.h"
#include "cli/options.h"

namespace chorus {

struct BenchOptions {
  std::string output_json;
  std::vector<std::string> inputs;  // files that are read, which no result may replace
  bool disable_progress_bars = false;

  void declare(Options& options);
};

BenchHooks hooks_of(const BenchOptions& options);

// Measures, prints the table and writes the JSON object, whose file is opened before anything is measured, so that a
// wrong name does not cost a run; and the plot, where there is one, beside it as NAME.svg. `save` is called with the
// result behind the table; where it fails the rest is written all the same. The exit status.
Result<int> report(const BenchOptions& options, const std::function<Result<BenchResult>(const BenchHooks&)>& measure,
                   const std::function<Result<void>(const Json& result)>& save = {});

}  // namespace chorus

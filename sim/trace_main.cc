// chorus_trace: a recorded load through simulated replicas, once for each load balancer: what their prefix caches find
// and how long requests wait. Exit status 0; 2: wrong usage, or no such trace.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <string>

#include "cluster/balance/load_balancer.h"
#include "trace_run.h"

namespace chorus::sim {
namespace {

void show(const char* name, const TraceOutcome& outcome) {
  fmt::print(
      "{:<16} requests {} prompt-tokens {} cached {:.1f}% waiting p50 {:.3f} s p99 {:.3f} s first-token p50 {:.3f} s "
      "p99 {:.3f} s busiest {:.3f} x mean, {:.0f} s\n",
      name, outcome.requests, outcome.prompt_tokens,
      100 * static_cast<double>(outcome.cached_tokens) / static_cast<double>(outcome.prompt_tokens),
      outcome.waiting_p50_s, outcome.waiting_p99_s, outcome.first_token_p50_s, outcome.first_token_p99_s,
      outcome.busiest, outcome.elapsed_s);
}

int run(int argc, char** argv) {
  std::string path;
  TraceConfig config;
  CLI::App app{"A Mooncake trace through simulated replicas."};
  app.add_option("--trace", path, "JSON lines: timestamp, input_length, output_length, hash_ids")->required();
  app.add_option("--replicas", config.replicas)->capture_default_str();
  app.add_option("--speed", config.speed, "arrivals come so many times as fast")->capture_default_str();
  app.add_option("--kv-tokens", config.kv_tokens, "that a replica's cache holds")->capture_default_str();
  app.add_option("--max-num-seqs", config.max_num_seqs)->capture_default_str();
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  const auto trace = read_trace(path);
  if (!trace.ok()) {
    fmt::print(stderr, "chorus_trace: {}\n", trace.error().message);
    return 2;
  }
#define CHORUS_SHOW(policy)                   \
  config.balancer = LoadBalancerName::policy; \
  show(#policy, run_trace(trace.value(), config));
  CHORUS_LOAD_BALANCERS(CHORUS_SHOW)
#undef CHORUS_SHOW
  return 0;
}

}  // namespace
}  // namespace chorus::sim

int main(int argc, char** argv) {
  return chorus::sim::run(argc, argv);
}

// chorus_sim: runs simulated clusters and says what came of them. Exit status 0: nothing was lost, repeated or changed;
// 1: something was, and the seed is named; 2: wrong usage.
#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <csignal>
#include <string>

#include "world.h"

namespace chorus::sim {
namespace {

struct Options {
  WorldConfig world;
  std::uint64_t worlds = 1;
  std::uint64_t deaths_min = 0;
  std::string sabotage = "none";
  bool no_faults = false;
};

// A failed CHECK ends the process: the seed must be known all the same.
char g_crash_message[128];
std::size_t g_crash_message_size = 0;

void say_seed_and_die(int signal) {
  [[maybe_unused]] const auto written = write(STDERR_FILENO, g_crash_message, g_crash_message_size);
  std::signal(signal, SIG_DFL);
  std::raise(signal);
}

std::string replay_command(const WorldConfig& config) {
  std::string command = fmt::format("chorus_sim --seed {} --requests {}", config.seed, config.requests);
  if (config.replicas != 0) command += fmt::format(" --replicas {}", config.replicas);
  if (config.cluster_seed != 0) command += fmt::format(" --cluster-seed {}", config.cluster_seed);
  if (!config.faults) command += " --no-faults";
  for (const auto& [name, kind] : kSabotages) {
    if (kind == config.sabotage && kind != Sabotage::none) command += fmt::format(" --sabotage {}", name);
  }
  return command;
}

void remember_seed(const WorldConfig& config) {
  const std::string message = fmt::format("seed {} crashed; again: {}\n", config.seed, replay_command(config));
  g_crash_message_size = message.copy(g_crash_message, sizeof g_crash_message);
}

std::string described(const Totals& totals, const Violations& violations) {
  return fmt::format(
      "requests {} deaths {} all-dead {} zombies {} resubmissions {} dropped-frames {} preemptions {} cache-hits {} "
      "aborts {} plans-in-flight {} pooled {} "
      "tokens {} lost {} repeated {} changed {} other {}",
      totals.requests, totals.deaths, totals.all_dead, totals.zombies, totals.resubmissions, totals.dropped,
      totals.preemptions, totals.cache_hits, totals.aborts, totals.most_in_flight, totals.pooled, totals.tokens,
      violations.lost, violations.repeated, violations.changed, violations.other);
}

void add(Violations* sum, const Violations& more) {
  sum->lost += more.lost;
  sum->repeated += more.repeated;
  sum->changed += more.changed;
  sum->other += more.other;
}

int run(const Options& options) {
  const auto start = std::chrono::steady_clock::now();
  Totals totals;
  Violations violations;
  Digest trace;
  for (std::uint64_t i = 0; i < options.worlds; ++i) {
    WorldConfig config = options.world;
    config.seed += i;
    remember_seed(config);
    const Outcome outcome = run_world(config);
    totals.add(outcome.totals);
    add(&violations, outcome.violations);
    trace.add(outcome.trace_digest);
    for (const std::string& what : outcome.violations.first) fmt::print("seed {}: {}\n", config.seed, what);
    if (outcome.violations.total() != 0) fmt::print("seed {} failed; again: {}\n", config.seed, replay_command(config));
  }
  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
  fmt::print("{}\ntrace digest {:016x}  worlds {}  elapsed {:.1f} s\n", described(totals, violations), trace.value(),
             options.worlds, elapsed.count());
  if (totals.deaths < options.deaths_min) {
    fmt::print("{} deaths, fewer than {}: the run proves too little\n", totals.deaths, options.deaths_min);
    return 1;
  }
  return violations.total() == 0 ? 0 : 1;
}

int run_command_line(int argc, char** argv) {
  Options options;
  CLI::App app{"Simulates clusters of replicas under faults and checks that no request is lost, repeated or changed."};
  app.add_option("--seed", options.world.seed, "of the first world")->capture_default_str();
  app.add_option("--worlds", options.worlds, "how many, with seeds that follow")->capture_default_str();
  app.add_option("--requests", options.world.requests, "in each world")->capture_default_str();
  app.add_option("--replicas", options.world.replicas, "0: 1 to 8, from the seed")->capture_default_str();
  app.add_option("--cluster-seed", options.world.cluster_seed, "other cluster and faults for the same requests");
  app.add_flag("--no-faults", options.no_faults, "nothing dies");
  app.add_option("--deaths-min", options.deaths_min, "fail when fewer epochs died");
  app.add_option("--sabotage", options.sabotage, "a deliberate bug, which must be found")->capture_default_str();
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  options.world.faults = !options.no_faults;
  for (const auto& [name, kind] : kSabotages) {
    if (options.sabotage != name) continue;
    options.world.sabotage = kind;
    return run(options);
  }
  fmt::print(stderr, "--sabotage {} is unknown\n", options.sabotage);
  return 2;
}

}  // namespace
}  // namespace chorus::sim

int main(int argc, char** argv) {
  std::signal(SIGABRT, chorus::sim::say_seed_and_die);
  return chorus::sim::run_command_line(argc, argv);
}

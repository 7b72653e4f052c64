// chorus_sim: runs simulated clusters and prints what happened. Exit status 0: nothing was lost, repeated, changed or
// stuck; 1: something was, and the seed is named; 2: wrong usage.
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
  std::string planted = "none";
  bool no_faults = false;
  bool no_poison = false;
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
  if (config.front_ends != 0) command += fmt::format(" --front-ends {}", config.front_ends);
  if (config.replicas != 0) command += fmt::format(" --replicas {}", config.replicas);
  if (config.restarts != 0) command += fmt::format(" --restarts {}", config.restarts);
  if (config.together) command += " --together";
  if (!config.faults) command += " --no-faults";
  if (!config.poison) command += " --no-poison";
  for (const auto& [name, fault] : planted_faults) {
    if (fault == config.planted && fault != PlantedFault::none) command += fmt::format(" --planted {}", name);
  }
  return command;
}

void remember_seed(const WorldConfig& config) {
  const std::string message = fmt::format("seed {} crashed; again: {}\n", config.seed, replay_command(config));
  g_crash_message_size = message.copy(g_crash_message, sizeof g_crash_message);
}

std::string described(const Totals& totals, const Violations& violations) {
  return fmt::format(
      "requests {} tokens {} deaths {} front-end-deaths {} zombies {} resubmissions {} dropped {} refused {} aborts {} "
      "drains {} removals {} additions {} restarts {} pauses {} loans {} convicted {} waves {} ends {} preemptions {} "
      "cache-hits {} "
      "plans-in-flight {} pooled {} lost {} stuck {} repeated {} changed {} other {}",
      totals.requests, totals.tokens, totals.deaths, totals.front_end_deaths, totals.zombies, totals.resubmissions,
      totals.dropped, totals.refused, totals.aborts, totals.drains, totals.removals, totals.additions, totals.restarts,
      totals.pauses, totals.loans, totals.convicted, totals.waves, totals.ends, totals.preemptions, totals.cache_hits,
      totals.most_in_flight, totals.pooled, violations.lost, violations.stuck, violations.repeated, violations.changed,
      violations.other);
}

void add(Violations* sum, const Violations& more) {
  sum->lost += more.lost;
  sum->stuck += more.stuck;
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
  CLI::App app{
      "Simulates clusters of replicas under faults and checks that no request is lost, repeated, changed or stuck."};
  app.add_option("--seed", options.world.seed, "of the first world")->capture_default_str();
  app.add_option("--worlds", options.worlds, "how many, with seeds that follow")->capture_default_str();
  app.add_option("--requests", options.world.requests, "in each world")->capture_default_str();
  app.add_option("--replicas", options.world.replicas, "0: 1 to 8, from the seed")->capture_default_str();
  app.add_option("--front-ends", options.world.front_ends, "0: 1 to 4, from the seed")->capture_default_str();
  app.add_option("--restarts", options.world.restarts, "of a replica in a row; 0: from the seed")
      ->capture_default_str();
  app.add_flag("--together", options.world.together, "replicas step together, in waves");
  app.add_flag("--no-faults", options.no_faults, "nothing dies by itself");
  app.add_flag("--no-poison", options.no_poison, "no request kills replicas");
  app.add_option("--deaths-min", options.deaths_min, "fail when fewer epochs died");
  app.add_option("--planted", options.planted, "a deliberate bug, which must be found")->capture_default_str();
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  options.world.faults = !options.no_faults;
  options.world.poison = !options.no_poison;
  for (const auto& [name, fault] : planted_faults) {
    if (options.planted != name) continue;
    options.world.planted = fault;
    return run(options);
  }
  fmt::print(stderr, "--planted {} is unknown\n", options.planted);
  return 2;
}

}  // namespace
}  // namespace chorus::sim

int main(int argc, char** argv) {
  std::signal(SIGABRT, chorus::sim::say_seed_and_die);
  return chorus::sim::run_command_line(argc, argv);
}

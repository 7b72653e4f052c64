// Runs every tests/data/cluster/supervisor/*.scenario. A line is
//   MILLISECONDS EVENT [RANK:EPOCH] [code=N | signal=N] -> ACTION RANK:EPOCH, ... [: STATE]
// what happens, every action that must follow, and the state of the rank then. First line: limits NAME=VALUE ..., times
// in milliseconds. '#' begins a comment line.
#include "cluster/supervisor.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>
#include <string>

namespace chorus {
namespace {

constexpr Nanoseconds millisecond = 1'000'000;

std::string trim(const std::string& text) {
  const auto begin = text.find_first_not_of(' ');
  if (begin == std::string::npos) return {};
  return text.substr(begin, text.find_last_not_of(' ') - begin + 1);
}

// "a=1 b=2" to a map; words without '=' are left out.
std::map<std::string, std::string> pairs_of(std::istream& words) {
  std::map<std::string, std::string> pairs;
  for (std::string word; words >> word;) {
    if (const auto at = word.find('='); at != std::string::npos) pairs[word.substr(0, at)] = word.substr(at + 1);
  }
  return pairs;
}

Supervisor supervisor_from(const std::map<std::string, std::string>& pairs) {
  SupervisorLimits limits;
  int ranks = 0;
  for (const auto& [name, value] : pairs) {
    const auto milliseconds = [&] { return std::stoll(value) * millisecond; };
    if (name == "ranks")
      ranks = std::stoi(value);
    else if (name == "start_timeout")
      limits.start_timeout = milliseconds();
    else if (name == "heartbeat_timeout")
      limits.heartbeat_timeout = milliseconds();
    else if (name == "kill_timeout")
      limits.kill_timeout = milliseconds();
    else if (name == "backoff_first")
      limits.backoff_first = milliseconds();
    else if (name == "backoff_max")
      limits.backoff_max = milliseconds();
    else if (name == "stable_after")
      limits.stable_after = milliseconds();
    else if (name == "restarts_max")
      limits.restarts_max = static_cast<std::uint32_t>(std::stoul(value));
    else
      ADD_FAILURE() << "unknown limit " << name << "=" << value;
  }
  Supervisor supervisor(limits);
  for (int rank = 0; rank < ranks; ++rank) supervisor.add(true);
  return supervisor;
}

Placement placement_of(const std::string& word) {
  const auto colon = word.find(':');
  if (colon == std::string::npos) return {std::stoi(word), 0};
  return {std::stoi(word), static_cast<Epoch>(std::stoul(word.substr(colon + 1)))};
}

int number(const std::map<std::string, std::string>& pairs, const std::string& name) {
  return pairs.contains(name) ? std::stoi(pairs.at(name)) : 0;
}

// Applies "MILLISECONDS EVENT ..." and returns the rank it was about (0 for a tick).
int apply_event(const std::string& text, Supervisor& supervisor) {
  std::istringstream words(text);
  Nanoseconds now = 0;
  std::string event, who = "0";
  words >> now >> event;
  now *= millisecond;
  if (event != "tick") words >> who;
  const Placement replica = placement_of(who);
  const auto pairs = pairs_of(words);
  if (event == "start")
    supervisor.start(replica.rank, now);
  else if (event == "ready")
    supervisor.ready(replica, now);
  else if (event == "heartbeat")
    supervisor.heartbeat(replica, now);
  else if (event == "exited")
    supervisor.exited(replica, {number(pairs, "code"), number(pairs, "signal")}, now);
  else if (event == "fault")
    supervisor.fault(replica, now);
  else if (event == "give_up")
    supervisor.give_up(replica.rank, now);
  else if (event == "remove")
    supervisor.remove(replica.rank, now);
  else if (event == "restart")
    supervisor.restart(replica.rank, now);
  else if (event == "tick")
    supervisor.tick(now);
  else
    ADD_FAILURE() << "unknown event " << event;
  return replica.rank;
}

std::string described(const std::vector<SupervisorAction>& actions) {
  static constexpr const char* kind_names[] = {"spawn", "kill", "died", "give_up"};
  std::string text;
  for (const SupervisorAction& action : actions) {
    if (!text.empty()) text += ", ";
    text += std::string(kind_names[static_cast<std::size_t>(action.kind)]) + " " + std::to_string(action.replica.rank) +
            ":" + std::to_string(action.replica.epoch);
  }
  return text;
}

void run_line(const std::string& line, Supervisor& supervisor) {
  const auto arrow = line.find("->");
  ASSERT_NE(arrow, std::string::npos) << "no '->'";
  const int rank = apply_event(line.substr(0, arrow), supervisor);
  const std::string expected = line.substr(arrow + 2);
  const auto state = expected.find(" : ");
  EXPECT_EQ(described(supervisor.take_actions()), trim(expected.substr(0, state)));
  if (state == std::string::npos) return;
  EXPECT_EQ(name_of(supervisor.state(rank)), trim(expected.substr(state + 3)));
}

void run_scenario(const std::filesystem::path& path) {
  std::ifstream file(path);
  std::string line;
  Supervisor supervisor({});
  for (int number = 1; std::getline(file, line); ++number) {
    SCOPED_TRACE(path.filename().string() + ":" + std::to_string(number) + ": " + line);
    if (line.empty() || line[0] == '#') continue;
    std::istringstream words(line);
    if (line.starts_with("limits ")) {
      supervisor = supervisor_from(pairs_of(words));
    } else {
      run_line(line, supervisor);
    }
  }
}

TEST(Supervisor, FollowsEveryScenario) {
  int scenarios = 0;
  for (const auto& entry : std::filesystem::directory_iterator(CHORUS_TEST_DATA "/cluster/supervisor")) {
    run_scenario(entry.path());
    ++scenarios;
  }
  EXPECT_GE(scenarios, 8);
}

TEST(Supervisor, TellsWhenToTickNext) {
  SupervisorLimits limits;
  limits.start_timeout = 100;
  limits.heartbeat_timeout = 1000;
  limits.backoff_first = 10;
  Supervisor supervisor(limits);
  for (int i = 0; i < 2; ++i) supervisor.add(true);
  EXPECT_EQ(supervisor.next_deadline(), std::nullopt);
  supervisor.start(0, 0);
  supervisor.start(1, 50);
  EXPECT_EQ(supervisor.next_deadline(), 100);
  supervisor.ready({0, 1}, 60);
  EXPECT_EQ(supervisor.next_deadline(), 150);
  supervisor.exited({1, 1}, {1, 0}, 70);
  EXPECT_EQ(supervisor.next_deadline(), 80);
}

TEST(Supervisor, ARankThatNobodyCanRestartIsGivenUpAtItsFirstDeath) {
  Supervisor supervisor({});
  supervisor.add(true);
  supervisor.add(false);
  for (const int rank : {0, 1}) supervisor.start(rank, 0);
  EXPECT_EQ(described(supervisor.take_actions()), "spawn 0:1, spawn 1:1");
  for (const int rank : {0, 1}) {
    supervisor.ready({rank, 1}, 1);
    supervisor.exited({rank, 1}, {1, 0}, 2);
  }
  EXPECT_EQ(described(supervisor.take_actions()), "died 0:1, died 1:1, give_up 1:1");
  EXPECT_EQ(supervisor.state(0), ReplicaState::backing_off);
}

TEST(Supervisor, SaysWhenNoReplicaWillWorkAgain) {
  SupervisorLimits limits;
  limits.restarts_max = 0;
  Supervisor supervisor(limits);
  for (int i = 0; i < 2; ++i) supervisor.add(true);
  supervisor.start(0, 0);
  supervisor.start(1, 0);
  supervisor.exited({0, 1}, {0, 9}, 1);
  EXPECT_FALSE(supervisor.all_given_up());
  supervisor.exited({1, 1}, {0, 9}, 2);
  EXPECT_TRUE(supervisor.all_given_up());
}

}  // namespace
}  // namespace chorus

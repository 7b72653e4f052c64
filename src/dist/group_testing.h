// Runs one function as every rank of a world, as threads or as processes, for the tests of this room.
#pragma once

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

#include "base/check.h"
#include "dist/group.h"

namespace chorus {

// What one rank does; what it returns is a failure ("" is none).
using RankFunction = std::function<std::string(Group&)>;

inline constexpr int test_timeout_ms = 60'000;

inline Group join_all(const SharedWorld& world, int rank, int timeout_ms = test_timeout_ms) {
  auto transport = world.join(rank, timeout_ms);
  CHECK(transport.ok(), "{}", transport.error().message);
  std::vector<int> members(static_cast<std::size_t>(world.size()));
  std::iota(members.begin(), members.end(), 0);
  return Group(std::shared_ptr<Transport>(std::move(*transport)), members);
}

// The failures of all ranks, each behind its number.
inline std::string run_as_threads(int size, const RankFunction& function, int timeout_ms = test_timeout_ms) {
  auto groups = make_thread_groups(size, timeout_ms);
  std::vector<std::string> failures(groups.size());
  std::vector<std::thread> threads;
  for (std::size_t r = 0; r < groups.size(); ++r) threads.emplace_back([&, r] { failures[r] = function(groups[r]); });
  for (auto& thread : threads) thread.join();
  std::string all;
  for (std::size_t r = 0; r < failures.size(); ++r) {
    if (!failures[r].empty()) all += fmt::format("rank {}: {}\n", r, failures[r]);
  }
  return all;
}

// Forks the ranks; a child says its failure on stderr and ends with status 1.
inline pid_t fork_rank(const SharedWorld& world, int rank, const RankFunction& function,
                       int timeout_ms = test_timeout_ms) {
  const pid_t child = ::fork();
  CHECK(child >= 0);
  if (child != 0) return child;
  std::string failure;
  {
    Group group = join_all(world, rank, timeout_ms);
    failure = function(group);
  }
  if (!failure.empty()) fmt::print(stderr, "rank {}: {}\n", rank, failure);
  ::_exit(failure.empty() ? 0 : 1);
}

inline int exit_status_of(pid_t child) {
  int status = 0;
  CHECK(::waitpid(child, &status, 0) == child);
  return status;
}

inline std::string run_as_processes(int size, const RankFunction& function, int timeout_ms = test_timeout_ms) {
  const auto world = SharedWorld::create(size);
  CHECK(world.ok(), "{}", world.error().message);
  std::vector<pid_t> children;
  for (int rank = 0; rank < size; ++rank) children.push_back(fork_rank(*world, rank, function, timeout_ms));
  std::string all;
  for (int rank = 0; rank < size; ++rank) {
    const int status = exit_status_of(children[static_cast<std::size_t>(rank)]);
    if (status != 0) all += fmt::format("rank {} ended with status {}\n", rank, status);
  }
  return all;
}

}  // namespace chorus

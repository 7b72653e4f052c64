// How fleets of real processes begin and end (fleet_test.cc has their main()).
#include "fleet/fleet.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <cstdlib>
#include <filesystem>

#include "base/clock.h"
#include "testing/fleet_running.h"
#include "testing/fleet_testing.h"
#include "worker/child_process.h"

namespace chorus::testing_fleet {
namespace {

using testing::AllOf;
using testing::HasSubstr;

struct BadStart {
  const char* manner;
  ErrorCode code;
  const char* message;
};
class FleetBadStart : public testing::TestWithParam<BadStart> {};
INSTANTIATE_TEST_SUITE_P(Manners, FleetBadStart,
                         testing::Values(BadStart{"wrong", ErrorCode::invalid_argument,
                                                  "exited with status 2: the toy does not like max_model_len"},
                                         BadStart{"crash", ErrorCode::unavailable, "exited with status 7"},
                                         BadStart{"hang", ErrorCode::deadline_exceeded,
                                                  "was not ready within 1000 ms"}),
                         [](const auto& info) { return std::string(info.param.manner); });

TEST_P(FleetBadStart, FailsWithTheReasonAndLeavesNothing) {
  const std::size_t descriptors = open_descriptors();
  EngineConfig config = toy_engine_config(2, GetParam().manner);
  if (GetParam().code == ErrorCode::deadline_exceeded) config.engine_start_timeout_ms = 1000;
  const auto fleet = start_toy_fleet(config);
  ASSERT_FALSE(fleet.ok());
  EXPECT_EQ(fleet.error().code, GetParam().code);
  EXPECT_THAT(fleet.error().message, AllOf(HasSubstr("worker rank "), HasSubstr(GetParam().message)));
  expect_no_children();
  EXPECT_EQ(open_descriptors(), descriptors);
}

TEST(Fleet, AStartThatIsInterruptedEndsAtOnceAndLeavesNothing) {
  FleetSetup setup{make_toy_weights, supervisor_limits(toy_engine_config(2)), {}, {}};
  int asked = 0;
  setup.interrupted = [&] { return ++asked == 3; };
  const Nanoseconds begin = monotonic_now();
  const auto fleet = start_fleet(toy_engine_config(2, "hang"), toy_model_config(), std::move(setup));
  ASSERT_FALSE(fleet.ok());
  EXPECT_EQ(fleet.error().code, ErrorCode::cancelled);
  EXPECT_LT(monotonic_now() - begin, 5'000'000'000);
  expect_no_children();
}

TEST(Fleet, AnEngineThatEndsBeforeItsFirstWordFailsTheStart) {
  ::setenv(manner_variable, "exit", 1);
  const auto fleet = start_toy_fleet(toy_engine_config(2));
  ::unsetenv(manner_variable);
  ASSERT_FALSE(fleet.ok());
  EXPECT_THAT(fleet.error().message, HasSubstr("exited with status 9"));
  expect_no_children();
}

// Rank 0 is READY and killed; rank 1 starts only once rank 0 starts anew, which proves that its death was seen before.
TEST(Fleet, AReadyReplicaKilledWhileAnotherStartsIsStartedAgain) {
  const std::vector<Request> requests = mixed_requests(40);
  const Outputs expected = direct_outputs(requests);
  std::string directory = testing::TempDir() + "chorus-fleet-XXXXXX";
  ASSERT_NE(::mkdtemp(directory.data()), nullptr);
  ASSERT_EQ(::mkfifo((directory + "/gate").c_str(), 0600), 0);
  ::setenv(manner_variable, ("overlap:" + directory).c_str(), 1);
  Outputs outputs;
  const std::string lines = log_of([&] {
    auto fleet = start_toy_fleet(toy_engine_config(2));
    ASSERT_TRUE(fleet.ok()) << fleet.error().message;
    outputs = run_all(fleet->get(), requests);
  });
  ::unsetenv(manner_variable);
  std::filesystem::remove_all(directory);
  EXPECT_EQ(outputs, expected);
  EXPECT_THAT(lines, AllOf(HasSubstr("Worker rank 0 (pid "), HasSubstr("was killed by SIGKILL"),
                           HasSubstr("; it held no requests")));
}

TEST(Fleet, FiftyStartsAndEndsLeaveNoProcessAndNoDescriptor) {
  { ASSERT_TRUE(start_toy_fleet(toy_engine_config(2)).ok()); }
  const std::size_t descriptors = open_descriptors();
  for (int cycle = 0; cycle < 50; ++cycle) ASSERT_TRUE(start_toy_fleet(toy_engine_config(2)).ok());
  EXPECT_EQ(open_descriptors(), descriptors);
  expect_no_children();
}

TEST(Fleet, EndsInTimeWhileEnginesAreAtWork) {
  auto fleet = start_toy_fleet(toy_engine_config(2, "crawl"));
  ASSERT_TRUE(fleet.ok());
  for (const Request& request : mixed_requests(60)) ASSERT_TRUE((*fleet)->submit(request, std::nullopt).ok());
  std::vector<FleetEvent> events;
  ASSERT_TRUE((*fleet)->poll(1000, &events).ok());
  const Nanoseconds begin = monotonic_now();
  fleet->reset();
  EXPECT_LT(monotonic_now() - begin, 2'000'000'000);
  expect_no_children();
}

TEST(Fleet, KillsEnginesThatDoNotEndByThemselves) {
  auto fleet = start_toy_fleet(toy_engine_config(2, "stuck"));
  ASSERT_TRUE(fleet.ok());
  for (const Request& request : mixed_requests(10)) ASSERT_TRUE((*fleet)->submit(request, std::nullopt).ok());
  std::vector<FleetEvent> events;
  ASSERT_TRUE((*fleet)->poll(100, &events).ok());
  const Nanoseconds begin = monotonic_now();
  fleet->reset();
  EXPECT_LT(monotonic_now() - begin, 4'000'000'000);
  expect_no_children();
}

// The process of the fleet, in a fork: tells its engines' pids and works on until it is killed.
[[noreturn]] void fleet_parent(const char* manner, int pipe_end) {
  auto fleet = start_toy_fleet(toy_engine_config(2, manner));
  if (!fleet.ok()) ::_exit(1);
  for (const Request& request : mixed_requests(60)) static_cast<void>((*fleet)->submit(request, std::nullopt).ok());
  std::vector<FleetEvent> events;
  if (!(*fleet)->poll(100, &events).ok()) ::_exit(1);  // the engines are in a step
  for (const ReplicaStatus& replica : (*fleet)->replicas()) {
    if (::write(pipe_end, &replica.pid, sizeof replica.pid) != sizeof replica.pid) ::_exit(1);
  }
  while ((*fleet)->poll(1000, &events).ok()) events.clear();
  ::_exit(1);
}

class OrphanedEngines : public testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Manners, OrphanedEngines, testing::Values("crawl", "stuck"));

TEST_P(OrphanedEngines, EndWithTheirFleetWithinASecond) {
  ::prctl(PR_SET_CHILD_SUBREAPER, 1);  // the orphans become ours, so that we can reap them
  int ends[2];
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
  const pid_t parent = ::fork();
  if (parent == 0) fleet_parent(GetParam(), ends[1]);
  std::vector<int> pids(2);
  std::vector<UniqueFd> engines;
  for (int& pid : pids) {
    ASSERT_EQ(::read(ends[0], &pid, sizeof pid), static_cast<ssize_t>(sizeof pid));
    engines.push_back(open_pidfd(pid));
  }
  const Nanoseconds begin = monotonic_now();
  ::kill(parent, SIGKILL);
  for (std::size_t i = 0; i < pids.size(); ++i) {
    pollfd item{engines[i].get(), POLLIN, 0};
    const bool ended = ::poll(&item, 1, 1000) == 1;
    EXPECT_TRUE(ended) << "engine " << pids[i];
    if (!ended) ::kill(pids[i], SIGKILL);
  }
  EXPECT_LT(monotonic_now() - begin, 1'000'000'000);
  while (::waitpid(-1, nullptr, 0) > 0) {
  }
  ::close(ends[0]);
  ::close(ends[1]);
  ::prctl(PR_SET_CHILD_SUBREAPER, 0);
}

}  // namespace
}  // namespace chorus::testing_fleet

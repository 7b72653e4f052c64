// Replicas that step together, with real processes (fleet_test.cc's program is its own engine executable).
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <thread>

#include "testing/fleet_running.h"
#include "testing/fleet_testing.h"
#include "worker/child_start.h"

namespace chorus::testing_fleet {
namespace {

using testing::AllOf;
using testing::HasSubstr;

// Ranks 0 and 1 step together. Rank 0 starts once; then it always ends while it starts, so late that rank 1 was READY
// for long and has its whole budget of restarts again. Without rank 0 there is no further wave: rank 1 must not wait
// for one.
TEST(Fleet, RanksThatStepTogetherAreGivenUpTogether) {
  std::string directory = testing::TempDir() + "chorus-fleet-XXXXXX";
  ASSERT_NE(::mkdtemp(directory.data()), nullptr);
  ::setenv(manner_variable, ("once:" + directory).c_str(), 1);
  EngineConfig config = toy_engine_config(2);
  config.parallel.enable_expert_parallel = true;
  FleetSetup setup{make_toy_weights, supervisor_limits(config), {}, {}};
  setup.supervisor.backoff_first = setup.supervisor.backoff_max = 1'000'000;
  setup.supervisor.stable_after = 1'000'000;
  setup.supervisor.restarts_max = 2;
  Result<void> polled;
  const std::string lines = log_of([&] {
    ModelConfig model = toy_model_config();
    model.num_experts = 2;  // else there is nothing to step together for
    auto fleet = start_fleet(config, model, std::move(setup));
    ASSERT_TRUE(fleet.ok()) << fleet.error().message;
    ::kill((*fleet)->replicas()[0].pid, SIGKILL);
    std::vector<FleetEvent> events;
    const Nanoseconds deadline = monotonic_now() + test_timeout;
    while (polled.ok() && monotonic_now() < deadline) polled = (*fleet)->poll(100, &events);
  });
  ::unsetenv(manner_variable);
  std::filesystem::remove_all(directory);
  ASSERT_FALSE(polled.ok());
  EXPECT_THAT(polled.error().message,
              AllOf(HasSubstr("no replica could be kept alive: worker rank 0 exited with status 9"),
                    HasSubstr("worker rank 1 was ended (worker rank 0, which it steps together with, died)")));
  EXPECT_THAT(lines, HasSubstr("Worker rank 1 is given up with worker rank 0"));
}

}  // namespace

// Rank 0 starts once; afterwards it ends while the other one is READY.
int engine_of_a_world(bool rank_0, const std::string& directory) {
  if (rank_0 && ::mkdir((directory + "/first").c_str(), 0700) != 0) {
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    return 9;
  }
  const ReplicaFactory start = [](const EngineStart& start, const LoadedWeights& weights, Connection* connection,
                                  const ProgressMemory& progress) -> Result<StartedReplica> {
    CHORUS_TRY_VOID(receive_message(connection, MessageType::world, "WORLD"));
    return start_toy(start, weights, connection, progress);
  };
  return engine_process_main(engine_socket_fd, start);
}

}  // namespace chorus::testing_fleet

// What the tests of the fleet with real engine processes share: running requests, and what a fleet leaves behind.
#pragma once

#include <gtest/gtest.h>
#include <sys/wait.h>

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "testing/fleet_testing.h"

namespace chorus::testing_fleet {

// Set in the environment of engines: they end before HELLO ("exit"), speak garbage as rank 0 ("garbage"), one dies
// while the other still starts ("overlap:" and a directory, see overlapping_engine()), or one never starts again
// ("once:" and a directory, see fleet_world_test.cc).
inline constexpr const char* manner_variable = "CHORUS_FLEET_TEST_ENGINE";

using Hook = std::function<void(HostedFleet&, const Collector&)>;

inline void run(HostedFleet* fleet, std::uint32_t choices, Collector* collector, const Hook& after_poll = {}) {
  const Nanoseconds deadline = monotonic_now() + test_timeout;
  std::vector<FleetEvent> events;
  while (collector->finished() < choices) {
    events.clear();
    const auto polled = fleet->poll(1000, &events);
    ASSERT_TRUE(polled.ok()) << polled.error().message;
    for (const FleetEvent& event : events) collector->take(event.event);
    if (after_poll) after_poll(*fleet, *collector);
    ASSERT_LT(monotonic_now(), deadline) << collector->finished() << " of " << choices << " choices finished";
  }
}

inline Outputs run_all(HostedFleet* fleet, const std::vector<Request>& requests, const Hook& after_poll = {}) {
  Collector collector;
  for (const Request& request : requests) submit(fleet, request, std::nullopt, &collector);
  run(fleet, choices_of(requests), &collector, after_poll);
  return collector.outputs();
}

inline std::size_t open_descriptors() {
  std::size_t count = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) ++count;
  return count;
}

// No child of this process is left, not even a zombie.
inline void expect_no_children() {
  EXPECT_EQ(::waitpid(-1, nullptr, WNOHANG), -1);
  EXPECT_EQ(errno, ECHILD);
}

// What `action` logs.
inline std::string log_of(const std::function<void()>& action) {
  testing::internal::CaptureStderr();
  action();
  return testing::internal::GetCapturedStderr();
}

}  // namespace chorus::testing_fleet

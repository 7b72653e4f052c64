// Fleets of toy engines.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "fleet/fleet.h"
#include "fleet/fleet_setup.h"
#include "testing/toy_engine.h"

namespace chorus::testing_fleet {

inline Result<std::unique_ptr<HostedFleet>> start_toy_fleet(const EngineConfig& config) {
  FleetSetup setup{make_toy_weights, supervisor_limits(config), {}, {}};
  setup.supervisor.backoff_first = 20'000'000;
  return start_fleet(config, toy_model_config(), std::move(setup));
}

// Submits it; the collector knows it by the id that it has here.
inline void submit(Fleet* fleet, const Request& request, std::optional<int> dp_rank, Collector* collector) {
  const auto id = fleet->submit(request, dp_rank);
  ASSERT_TRUE(id.ok()) << id.error().message;
  collector->rename(*id, request.id);
}

// Request i to rank i mod ranks, until all are done. `on_event` is called after each event, with how many there were.
inline Outputs run_spread(Fleet* fleet, const std::vector<Request>& requests,
                          const std::function<void(std::size_t)>& on_event = {}) {
  const int ranks = static_cast<int>(fleet->replicas().size());
  Collector collector;
  for (const Request& request : requests) {
    submit(fleet, request, static_cast<int>(request.id.number) % ranks, &collector);
  }
  std::vector<FleetEvent> events;
  const Nanoseconds deadline = monotonic_now() + test_timeout;
  while (collector.finished() < choices_of(requests) && monotonic_now() < deadline) {
    events.clear();
    const auto polled = fleet->poll(1000, &events);
    EXPECT_TRUE(polled.ok()) << polled.error().message;
    if (!polled.ok()) break;
    for (const FleetEvent& event : events) {
      collector.take(event.event);
      if (on_event) on_event(collector.events());
    }
  }
  return collector.outputs();
}

}  // namespace chorus::testing_fleet

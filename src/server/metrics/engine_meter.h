// What the parent counts: how each replica is, over all its incarnations, and the line about it in the log that vLLM's
// users look for. An engine's own counts begin at 0 with each incarnation; those here never fall. Pure: it is told the
// time.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/clock.h"
#include "fleet/fleet.h"
#include "server/metrics/metric_store.h"

namespace chorus {

class EngineMeter {
 public:
  EngineMeter(MetricSlot slot, int engines);  // at the start; more may come

  // How they are now, as the host knows it.
  void take(std::span<const ReplicaStatus> replicas);
  // Every ten seconds a line of each replica that does something, or did since the last time; none of idle ones.
  std::vector<std::string> log_lines(Nanoseconds now);

 private:
  struct Engine {
    ReplicaStatus now;
    EngineLoad ended;         // counters of incarnations that are no more
    EngineLoad at_last_line;  // total() then
    double hit_rate = 0;      // of the last interval in which something was looked up
    EngineLoad total() const;
  };

  void write(const Engine& engine, int rank) const;
  static std::string line(Engine& engine, double interval_s);

  MetricSlot slot_;
  std::vector<Engine> engines_;
  std::optional<Nanoseconds> last_lines_at_;
};

}  // namespace chorus

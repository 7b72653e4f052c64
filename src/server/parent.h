// The parent of a server: keeps the front ends alive beside the engines, which its host keeps alive. It touches no
// request. A front end that dies cuts its own clients off; it is started again, at once and then with growing pauses,
// and its listening socket stays open meanwhile, so that new clients wait instead of being refused.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "fleet/host.h"
#include "net/connection.h"
#include "net/unique_fd.h"
#include "server/front_end_process.h"
#include "server/metrics/engine_meter.h"
#include "server/metrics/metric_store.h"
#include "worker/child_process.h"

namespace chorus {

class ServerParent {
 public:
  // `listeners`: one for each front end. `metrics`: of metric_shape(). `host` outlives this.
  ServerParent(FleetHost* host, FrontEndStart start, std::vector<UniqueFd> listeners, MetricStore metrics,
               bool log_stats);
  ~ServerParent();  // ends what still runs

  // Begins the processes, which load what they need while the engines start.
  Result<void> begin();
  // The host has started: connects the front ends to the fleet, and returns when all of them serve. An error: one of
  // them cannot; `cancelled`: `stop` said so.
  Result<void> connect(const std::function<bool()>& stop);
  // Until `stop` (asked ten times a second) says so: then the front ends end in order, or after their timeout. An
  // error: the engines, or the front ends, cannot be kept alive.
  Result<void> run(const std::function<bool()>& stop);

 private:
  struct FrontEndChild {
    UniqueFd listener;
    ChildProcess process;
    std::unique_ptr<Connection> control;  // null: it does not run
    ClientId client = 0;                  // of the fleet; 0: not connected yet
    bool configured = false;              // it has its CONFIG: CLIENT may follow
    bool serves = false;
    int failures = 0;  // ends in a row before it served for a while
    Nanoseconds begun_at = 0;
    std::optional<Nanoseconds> begins_at;  // again
    std::string last_words;
  };

  Result<void> begin(std::size_t index);
  void turn(int timeout_ms);
  void read(FrontEndChild& child, std::size_t index);
  void take(FrontEndChild& child, std::size_t index, Frame frame);
  Result<void> configure(FrontEndChild& child, std::size_t index) const;
  void join_fleet(FrontEndChild& child, std::size_t index);
  void on_exit(FrontEndChild& child, std::size_t index, const ExitStatus& status);
  void begin_again();
  Result<void> check() const;
  void tell_to_end();
  void count();
  bool any_runs() const;

  FleetHost* host_;
  FrontEndStart start_;
  std::vector<FrontEndChild> children_;
  MetricStore metrics_;
  EngineMeter replicas_;
  bool log_stats_;
  bool fleet_is_there_ = false, ending_ = false;
};

}  // namespace chorus

// A front end and its host in one process: what an offline command has.
#include "fleet/fleet.h"

#include <random>
#include <utility>

#include "base/clock.h"
#include "fleet/fleet_client.h"
#include "fleet/fleet_setup.h"
#include "fleet/host.h"

namespace chorus {
namespace {

constexpr ClientId own_client = 0;
constexpr int submissions_per_write = 64;

class OfflineFleet final : public HostedFleet {
 public:
  OfflineFleet(const EngineConfig& config, const ModelConfig& model, const FleetSetup& setup)
      : client_(config, own_client, setup.prefix_key), host_(config, model, setup.supervisor, &client_) {}

  Result<void> start(FleetSetup setup) { return host_.start(std::move(setup)); }

  Result<RequestId> submit(Request request, std::optional<int> dp_rank) override {
    if (dp_rank) CHORUS_TRY_VOID(client_.check_rank(*dp_rank));
    CHORUS_TRY(const RequestId id, client_.dispatcher().submit(std::move(request), dp_rank));
    if (++unsent_ < submissions_per_write) return id;
    unsent_ = 0;
    host_.act();
    return id;
  }

  void abort(RequestId request) override {
    client_.dispatcher().abort(request);
    host_.act();
  }

  void abort_choice(RequestId request, std::uint32_t choice) override {
    client_.dispatcher().abort_choice(request, choice);
    host_.act();
  }

  std::uint64_t reset_prefix_caches() override {
    const std::uint64_t number = client_.dispatcher().reset_prefix_caches();
    host_.act();
    return number;
  }
  bool prefix_caches_are_reset(std::uint64_t number) const override {
    return client_.dispatcher().prefix_caches_are_reset(number);
  }

  FleetHost& host() override { return host_; }

  Result<void> poll(int timeout_ms, std::vector<FleetEvent>* events) override;

  FleetWait wait() override {
    unsent_ = 0;
    FleetWait wait = host_.wait();
    if (has_events() || host_.is_over()) wait.timeout_ms = 0;
    return wait;
  }

  std::vector<ReplicaStatus> replicas() const override { return host_.replicas(); }
  DispatcherCounters counters() const override { return client_.dispatcher().counters(); }
  FleetTimes times() const override { return host_.times(); }

 private:
  bool has_events() const { return client_.dispatcher().has_events(); }

  FleetClient client_;
  FleetHost host_;
  int unsent_ = 0;  // submissions that the next write takes along
};

Result<void> OfflineFleet::poll(int timeout_ms, std::vector<FleetEvent>* events) {
  const Nanoseconds deadline = monotonic_now() + Nanoseconds{timeout_ms} * 1'000'000;
  unsent_ = 0;  // turn() sends first
  do {
    if (host_.is_over()) break;
    host_.turn(has_events() ? 0 : milliseconds_until(deadline));
  } while (!has_events() && monotonic_now() < deadline);
  // What came before the end is still the caller's.
  if (!has_events() && host_.is_over()) return host_.all_dead();
  client_.dispatcher().take_events(events);
  return {};
}

}  // namespace

Error no_such_rank(int rank, int first, int end) {
  if (first == 0)
    return fail(ErrorCode::invalid_argument, "there is no data parallel rank {}: there are {}", rank, end);
  return fail(ErrorCode::invalid_argument,
              "there is no data parallel rank {} at this server, which has {} to {}: ask the "
              "server of that rank",
              rank, first, end - 1);
}

const char* name_of(ReplicaCondition condition) {
  static constexpr const char* names[] = {"starting",   "ready",    "draining", "drained",
                                          "restarting", "given_up", "removed"};
  return names[static_cast<std::size_t>(condition)];
}

PrefixKey random_prefix_key() {
  std::random_device device;
  const auto word = [&device] { return (std::uint64_t{device()} << 32) | device(); };
  return {word(), word()};
}

SupervisorLimits supervisor_limits(const EngineConfig& config) {
  SupervisorLimits limits;
  limits.start_timeout = Nanoseconds{config.engine_start_timeout_ms} * 1'000'000;
  limits.heartbeat_timeout = Nanoseconds{config.engine_heartbeat_timeout_ms} * 1'000'000;
  limits.restarts_max = static_cast<std::uint32_t>(config.engine_restarts_max);
  return limits;
}

Result<std::unique_ptr<HostedFleet>> start_fleet(const EngineConfig& config, const ModelConfig& model,
                                                 FleetSetup setup) {
  auto fleet = std::make_unique<OfflineFleet>(settled(config, model), model, setup);
  CHORUS_TRY_VOID(fleet->start(std::move(setup)));
  return std::unique_ptr<HostedFleet>(std::move(fleet));
}

}  // namespace chorus

// Choosing the replica for a new request. A policy is one file here, with its make_NAME(), and one row in
// config/load_balancers.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "config/engine_config.h"

namespace chorus {

// What was last reported of one replica, plus what this front end has sent it since (load_view.h): a plain value.
// A sequence is one choice of one request.
struct ReplicaLoad {
  std::uint32_t waiting = 0;  // sequences queued, not yet scheduled
  std::uint32_t running = 0;  // sequences in the current batch
  std::uint64_t kv_blocks_free = 0;
  bool accepting = false;  // alive, not draining
  // Of this request's prompt, the first tokens that it has computed before; 0 unless the policy looks at them.
  std::uint64_t prefix_tokens = 0;
};

// What a policy may know of the request.
struct RequestShape {
  std::size_t prompt_tokens = 0;
  std::uint32_t max_tokens = 0;
  std::uint32_t sequences = 1;
  std::int32_t priority = 0;
};

// Chooses the replica for one new request. Pure: no clock, no I/O, no lock; the same calls give the same choices in
// production, in tests and in simulation.
class LoadBalancer {
 public:
  virtual ~LoadBalancer() = default;
  virtual bool looks_at_prefixes() const { return false; }
  // Index into `loads`, or nullopt when no replica accepts.
  virtual std::optional<std::size_t> pick(const RequestShape& request, std::span<const ReplicaLoad> loads) = 0;
};

#define CHORUS_DECLARE(name) std::unique_ptr<LoadBalancer> make_##name();
CHORUS_LOAD_BALANCERS(CHORUS_DECLARE)
#undef CHORUS_DECLARE

std::unique_ptr<LoadBalancer> make_load_balancer(LoadBalancerName name);

#define CHORUS_ENUMERATOR(name) LoadBalancerName::name,
inline constexpr LoadBalancerName every_load_balancer[] = {CHORUS_LOAD_BALANCERS(CHORUS_ENUMERATOR)};
#undef CHORUS_ENUMERATOR

}  // namespace chorus

#include "fleet/connected_replicas.h"

#include <utility>

#include "base/check.h"

namespace chorus {
namespace {

constexpr Nanoseconds check_interval = 500'000'000;

}  // namespace

ConnectedReplicas::ConnectedReplicas(std::vector<std::unique_ptr<Connection>> engines,
                                     std::function<Result<void>()> check_world)
    : engines_(std::move(engines)), check_world_(std::move(check_world)) {
  for (const auto& engine : engines_) brings_.push_back(engine != nullptr);
}

bool ConnectedReplicas::brings(int rank) const {
  return static_cast<std::size_t>(rank) < brings_.size() && brings_[static_cast<std::size_t>(rank)];
}

Result<ReplicaLink> ConnectedReplicas::begin(Placement replica, std::uint64_t) {
  auto& engine = engines_.at(static_cast<std::size_t>(replica.rank));
  CHECK(engine != nullptr, "rank {} begins a second time", replica.rank);
  return ReplicaLink::adopt(replica, std::move(engine));
}

void ConnectedReplicas::configure(ReplicaLink* engine) {
  engine->post(MessageType::config, encode(host_->engine_start(engine->replica())));
}

std::optional<Nanoseconds> ConnectedReplicas::next_deadline() const {
  return check_world_ ? std::optional(next_check_) : std::nullopt;
}

std::vector<SourceEvent> ConnectedReplicas::advance(Nanoseconds now) {
  std::vector<SourceEvent> events;
  if (!check_world_ || now < next_check_) return events;
  next_check_ = now + check_interval;
  const Result<void> world = check_world_();
  if (world.ok()) return events;
  check_world_ = {};
  for (int rank = 0; rank < host_->ranks(); ++rank) {
    if (brings(rank)) events.push_back({SourceEvent::Kind::broken, rank, world.error().message});
  }
  return events;
}

}  // namespace chorus

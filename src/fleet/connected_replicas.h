// Engines that somebody else started (a launcher), each behind a connection. Such an engine has its own weights. It is
// dead when its connection breaks, and is not started again. All are dead when the world that they were started in
// is broken, which a connection may not tell: an engine may compute for long without a word.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "fleet/replica_source.h"

namespace chorus {

class ConnectedReplicas final : public ReplicaSource {
 public:
  // `engines`: by rank; nullptr: of another source. `check_world`: asked every half second; an error: it is broken.
  explicit ConnectedReplicas(std::vector<std::unique_ptr<Connection>> engines,
                             std::function<Result<void>()> check_world = {});

  bool brings(int rank) const override;
  ReplicaOrigin origin() const override { return ReplicaOrigin::connected; }
  Result<void> prepare(const FleetSetup&, const ModelConfig&, EngineConfig*) override { return {}; }
  void open(SourceHost* host, const EngineConfig&, const ModelConfig&, const LoadedWeights&) override { host_ = host; }
  Result<ReplicaLink> begin(Placement replica, std::uint64_t world) override;
  void configure(ReplicaLink* engine) override;
  std::optional<Nanoseconds> next_deadline() const override;
  std::vector<SourceEvent> advance(Nanoseconds now) override;

 private:
  std::vector<std::unique_ptr<Connection>> engines_;  // until they begin
  std::vector<bool> brings_;
  std::function<Result<void>()> check_world_;  // empty: there is none, or it was found broken
  Nanoseconds next_check_ = 0;
  SourceHost* host_ = nullptr;
};

}  // namespace chorus

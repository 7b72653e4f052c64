// One front end's side of the fleet: the Dispatcher over frames. It does not know how an engine's connection came to
// be: in an offline command it is the host's own (host.h), in a server one that the host has handed to it.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "cluster/dispatcher.h"
#include "config/engine_config.h"
#include "fleet/fleet.h"
#include "protocol/messages.h"

namespace chorus {

class FleetClient {
 public:
  // `prefix_key`: the engines'.
  FleetClient(const EngineConfig& config, ClientId client, const PrefixKey& prefix_key);

  ClientId id() const { return id_; }
  // Whether a request may name this rank: there is one, or was.
  Result<void> check_rank(int dp_rank) const;
  void on_news(const ReplicaNews& news, const std::string& reason = {});
  // Ever heard of, or configured: [first_rank(), ranks()).
  int first_rank() const { return first_rank_; }
  int ranks() const { return ranks_; }
  Dispatcher& dispatcher() { return dispatcher_; }
  const Dispatcher& dispatcher() const { return dispatcher_; }

  // What this incarnation says. `events`: the payload of EVENTS. Errors: the engine breaks the protocol.
  Result<void> on_events(Placement from, const std::string& events);
  Result<void> on_load(Placement from, const LoadMessage& load);
  Result<void> on_prefix_cache_reset(Placement from, const std::string& payload);
  // What is not read waits in the socket: the caller is to take the events that there are.
  bool has_room_for_frames() const { return dispatcher_.has_room_for_events(); }
  // What goes to this incarnation next, and its payload; nullopt: nothing.
  std::optional<std::pair<MessageType, std::string>> next_message(Placement to);

 private:
  ClientId id_;
  int first_rank_, ranks_;
  Dispatcher dispatcher_;
};

}  // namespace chorus

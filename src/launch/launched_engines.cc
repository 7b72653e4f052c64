#include "launch/launched_engines.h"

#include <fmt/ranges.h>
#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "base/clock.h"
#include "launch/node_listener.h"
#include "net/connector.h"
#include "net/tcp.h"
#include "net/wire.h"
#include "parallel/launch/rendezvous_handover.h"
#include "worker/child_start.h"

namespace chorus {
namespace {

constexpr Nanoseconds millisecond = 1'000'000;
constexpr Nanoseconds check_interval = 500 * millisecond;
constexpr std::size_t entrance_bytes_max = 1024;

Nanoseconds deadline_of(const EngineConfig& config) {
  return monotonic_now() + config.engine_start_timeout_ms * millisecond;
}

// Where rank 0 takes the engines of other replicas in.
struct Entrance {
  std::string host;
  int port = 0;
};

std::string encode(const Entrance& entrance) {
  WireWriter writer;
  writer.text(entrance.host);
  writer.u32(static_cast<std::uint32_t>(entrance.port));
  return writer.take();
}

Result<Entrance> decode_entrance(const std::string& bytes) {
  WireReader reader(bytes);
  Entrance entrance;
  entrance.host = reader.text();
  entrance.port = static_cast<int>(reader.u32());
  CHORUS_TRY_VOID(reader.finish());
  return entrance;
}

// A head whose one node has rank 0 alone: to it the others are replicas of other nodes, which come whole.
Result<std::unique_ptr<NodeListener>> open_entrance(EngineConfig config, const std::string& address) {
  config.parallel.data_parallel_address = address;
  config.parallel.data_parallel_rpc_port = 0;
  config.parallel.data_parallel_size_local = 1;
  config.parallel.enable_expert_parallel = false;
  return NodeListener::listen(config);
}

Result<void> take_in(const EngineConfig& config, NodeListener* entrance, const std::function<Result<void>()>& check,
                     std::vector<std::unique_ptr<Connection>>* engines) {
  const Nanoseconds deadline = deadline_of(config);
  const auto objection = [&](int dp_rank, int /*worker*/) -> std::string {
    const bool there = (*engines)[static_cast<std::size_t>(dp_rank)] != nullptr;
    return there ? fmt::format("rank {} is there already", dp_rank) : std::string();
  };
  std::vector<pollfd> items;
  while (std::find(engines->begin(), engines->end(), nullptr) != engines->end()) {
    CHORUS_TRY_VOID(check());
    const Nanoseconds now = monotonic_now();
    if (now >= deadline) {
      std::vector<int> missing;
      for (std::size_t dp = 0; dp < engines->size(); ++dp) {
        if (!(*engines)[dp]) missing.push_back(static_cast<int>(dp) * config.parallel.replica_size());
      }
      return fail(ErrorCode::deadline_exceeded,
                  "ranks {} did not connect to rank 0 at {} within {} ms (--engine-start-timeout-ms)",
                  fmt::join(missing, ", "), entrance->address().text(), config.engine_start_timeout_ms);
    }
    const Nanoseconds next = std::min({deadline, now + check_interval, entrance->next_deadline().value_or(deadline)});
    items.clear();
    entrance->append_descriptors(&items);
    const int ready = ::poll(items.data(), items.size(),
                             static_cast<int>((std::max(next - now, Nanoseconds{0}) + millisecond - 1) / millisecond));
    CHECK(ready >= 0 || errno == EINTR, "poll: {}", std::strerror(errno));
    for (NodeListener::Joined& joined : entrance->take(monotonic_now(), objection)) {
      // An engine reads nothing while it computes a step, for as long as that takes. That its node is lost the ranks
      // learn from their world.
      tcp::let_peer_be_busy(joined.connection->fd());
      (*engines)[static_cast<std::size_t>(joined.rank)] = std::move(joined.connection);
    }
  }
  return {};
}

Result<std::unique_ptr<Connection>> go_in(const EngineConfig& config, int rank, const Entrance& entrance,
                                          const std::shared_ptr<const ClusterKey>& key,
                                          const std::function<Result<void>()>& check) {
  const Nanoseconds deadline = deadline_of(config);
  while (true) {
    CHORUS_TRY_VOID(check());
    const Nanoseconds until = std::min(deadline, monotonic_now() + 2 * check_interval);
    auto fleet = connect_to(entrance.host, entrance.port, key, until);
    if (!fleet.ok() && fleet.error().code == ErrorCode::deadline_exceeded && until < deadline) continue;
    if (!fleet.ok()) return with_context(fleet.error(), "rank 0's entrance for engines");
    JoinMessage join;
    join.dp_rank = rank / config.parallel.replica_size();
    join.node = fmt::format("of rank {}", rank);
    CHORUS_TRY_VOID(send_message(fleet->get(), MessageType::join, 0, chorus::encode(join)));
    tcp::let_peer_be_busy((*fleet)->fd());
    return fleet;
  }
}

}  // namespace

Result<EngineConnections> hand_over_engine_sockets(const EngineConfig& config, int rank, Store& store) {
  const Nanoseconds deadline = deadline_of(config);
  EngineConnections connections;
  if (rank != 0) {
    CHORUS_TRY(UniqueFd received, receive_descriptor(store, rank, deadline));
    CHORUS_TRY(connections.fleet, make_socket_connection(std::move(received)));
    return connections;
  }
  std::vector<int> given(static_cast<std::size_t>(config.parallel.world_size()), -1);
  std::vector<UniqueFd> theirs;
  for (int dp = 0; dp < config.parallel.data_parallel_size; ++dp) {
    CHORUS_TRY(auto sockets, make_socket_pair());
    CHORUS_TRY(auto engine, make_socket_connection(std::move(sockets.first)));
    connections.engines.push_back(std::move(engine));
    theirs.push_back(std::move(sockets.second));
    given[static_cast<std::size_t>(dp * config.parallel.replica_size())] = theirs.back().get();
  }
  CHORUS_TRY_VOID(hand_over_descriptors(store, given, deadline));
  CHORUS_TRY(connections.fleet, make_socket_connection(std::move(theirs.front())));
  return connections;
}

Result<EngineConnections> connect_engines(const EngineConfig& config, Group* world, const std::string& address,
                                          const std::shared_ptr<const ClusterKey>& key,
                                          const std::function<Result<void>()>& check) {
  EngineConnections connections;
  std::unique_ptr<NodeListener> opened;
  std::string message;
  if (world->rank() == 0) {
    CHORUS_TRY(opened, open_entrance(config, address));
    message = encode(Entrance{opened->address().host(), opened->address().port()});
  }
  // Over the world's own links: who is in the store cannot send the engines elsewhere.
  CHORUS_TRY_VOID(world->broadcast_message(&message, 0, entrance_bytes_max));
  if (world->rank() == 0) {
    CHORUS_TRY(auto sockets, make_socket_pair());
    connections.engines.resize(static_cast<std::size_t>(config.parallel.data_parallel_size));
    CHORUS_TRY(connections.engines[0], make_socket_connection(std::move(sockets.first)));
    CHORUS_TRY(connections.fleet, make_socket_connection(std::move(sockets.second)));
    CHORUS_TRY_VOID(take_in(config, opened.get(), check, &connections.engines));
  } else if (world->rank() % config.parallel.replica_size() == 0) {
    CHORUS_TRY(const Entrance entrance, decode_entrance(message));
    CHORUS_TRY(connections.fleet, go_in(config, world->rank(), entrance, key, check));
  }
  return connections;
}

}  // namespace chorus

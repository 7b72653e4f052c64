#include "worker/spread_world.h"

#include <algorithm>

#include "net/authentication.h"
#include "parallel/transport/node_transport.h"
#include "parallel/transport/tcp_transport.h"
#include "worker/child_start.h"
#include "worker/worker_processes.h"

namespace chorus {

Result<std::shared_ptr<Transport>> join_spread_world(Connection* head, const EngineStart& start, int world_rank) {
  const ParallelConfig& parallel = start.config.parallel;
  TcpTransportOptions options;
  options.address = start.world_address;
  options.join_timeout_ms = start.config.engine_start_timeout_ms;
  options.exchange_timeout_ms = start.config.engine_heartbeat_timeout_ms;
  if (!start.world_key_file.empty()) {
    CHORUS_TRY(options.key, ClusterKey::read(start.world_key_file));
  }
  CHORUS_TRY(TcpDoor door, TcpDoor::open(options));
  CHORUS_TRY_VOID(send_message(head, MessageType::contact, start.epoch, encode(ContactMessage{door.contact()})));
  CHORUS_TRY(Frame frame, receive_message(head, MessageType::world, "WORLD", options.join_timeout_ms));
  CHORUS_TRY(const WorldMessage world, decode_world(frame.payload));
  const int size = parallel.replicas_step_together() ? parallel.world_size() : parallel.replica_size();
  if (world.contacts.size() != static_cast<std::size_t>(size)) {
    return fail(ErrorCode::invalid_argument, "WORLD has {} contacts for {} workers", world.contacts.size(), size);
  }
  const int rank = world_rank - first_world_rank(start, world_rank);
  CHORUS_TRY(auto over_tcp, door.join(rank, world.contacts));
  const std::vector<int> neighbours(start.world_neighbours.begin(), start.world_neighbours.end());
  if (neighbours.size() < 2) return std::shared_ptr<Transport>(std::move(over_tcp));
  if (!frame.descriptor.valid()) return fail(ErrorCode::invalid_argument, "WORLD came without its descriptor");
  CHORUS_TRY(const SharedWorld memory, SharedWorld::open(frame.descriptor.release()));
  const auto index = std::ranges::find(neighbours, rank) - neighbours.begin();
  CHORUS_TRY(auto within, memory.join(static_cast<int>(index), options.exchange_timeout_ms, neighbours));
  return std::shared_ptr<Transport>(make_node_transport(std::move(over_tcp), std::move(within), neighbours));
}

}  // namespace chorus

#include "fleet/spread_world.h"

#include "dist/tcp_transport.h"
#include "fleet/child_start.h"
#include "fleet/worker_processes.h"
#include "net/authentication.h"

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
  CHORUS_TRY(const Frame frame, receive_message(head, MessageType::world, "WORLD", options.join_timeout_ms));
  CHORUS_TRY(const WorldMessage world, decode_world(frame.payload));
  const int size = parallel.replicas_step_together() ? parallel.world_size() : parallel.replica_size();
  if (world.contacts.size() != static_cast<std::size_t>(size)) {
    return fail(ErrorCode::invalid_argument, "WORLD has {} contacts for {} workers", world.contacts.size(), size);
  }
  CHORUS_TRY(auto transport, door.join(world_rank - first_world_rank(start, world_rank), world.contacts));
  return std::shared_ptr<Transport>(std::move(transport));
}

}  // namespace chorus

// What engines say, and what goes out to them.
#include <algorithm>
#include <utility>

#include "base/log.h"
#include "fleet/host.h"

namespace chorus {
namespace {

// The kernel closes a dying process's sockets before its pidfd tells, on a busy machine long before: for so long its
// exit status is waited for, which says more than that the connection is closed.
constexpr Nanoseconds exit_after_close = 250'000'000;

}  // namespace

void FleetHost::read_from(int rank) {
  auto& link = at(rank).link;
  // What is not read now waits in the socket: the caller is to take what there is.
  while (link && link->connected() && (client_ == nullptr || client_->has_room_for_frames())) {
    auto frame = link->receive();
    if (!frame.ok()) {
      if (link->adopted() || frame.error().code != ErrorCode::unavailable) return fault(*link, frame.error().message);
      link->closed = {frame.error().message, monotonic_now() + exit_after_close};
      return;
    }
    if (!frame->has_value()) return;
    const Placement incarnation = link->replica();  // last words are the end of an adopted link
    const auto handled = handle(*link, **frame);
    if (!handled.ok()) return fault(*link, handled.error().message);
    coordinator_.heartbeat(incarnation, monotonic_now());
  }
}

Result<void> FleetHost::handle(ReplicaLink& link, const Frame& frame) {
  switch (static_cast<MessageType>(frame.type)) {
    case MessageType::hello:
      return on_hello(link, frame);
    case MessageType::ready:
      return on_ready(link, frame);
    case MessageType::events:
      if (client_ == nullptr)
        return fail(ErrorCode::invalid_argument, "EVENTS, and no front end shares this connection");
      return client_->on_events(link.replica(), frame.payload);
    case MessageType::load:
      return on_load(link, frame);
    case MessageType::prefix_cache_reset:
      if (client_ == nullptr) return fail(ErrorCode::invalid_argument, "PREFIX_CACHE_RESET, which nobody asked for");
      return client_->on_prefix_cache_reset(link.replica(), frame.payload);
    case MessageType::heartbeat:
      return {};
    case MessageType::wave:
      return on_wave_ended(link, frame);
    case MessageType::contact:
      return at(link.replica().rank).source->take_contact(link.replica(), frame);
    case MessageType::fatal:
      return on_fatal(link, frame);
    default:
      return fail(ErrorCode::invalid_argument, "message of type {} is none that an engine sends", frame.type);
  }
}

EngineStart FleetHost::engine_start(Placement replica) const {
  EngineStart start;
  start.config = config_;
  start.model = model_;
  start.config.parallel.data_parallel_size = std::max(config_.parallel.data_parallel_size, ranks());
  start.dp_rank = replica.rank;
  start.epoch = replica.epoch;
  start.kv_cache_bytes = kv_cache_bytes_;
  start.threads = threads_;
  start.isa = weights_.isa;
  start.dtype = weights_.dtype;
  start.shard_offsets = weights_.shard_offsets;
  start.prefix_key = prefix_key_;
  return start;
}

Result<void> FleetHost::on_hello(ReplicaLink& link, const Frame& frame) {
  CHORUS_TRY(const HelloMessage hello, link.take_hello(frame));
  if (link.adopted()) link.set_pid(hello.pid);
  at(link.replica().rank).source->configure(&link);
  return {};
}

Result<void> FleetHost::on_ready(ReplicaLink& link, const Frame& frame) {
  CHORUS_TRY(const ReadyMessage ready, decode_ready(frame.payload));
  const Placement replica = link.replica();
  if (coordinator_.state(replica.rank) != ReplicaState::starting)
    return fail(ErrorCode::invalid_argument, "READY out of turn");
  if (ready.profile != times_.profile) {
    return fail(ErrorCode::invalid_argument, "its numerics profile is {}, the fleet's {}", ready.profile,
                times_.profile);
  }
  if (client_ != nullptr) link.post(MessageType::client, encode(ClientMessage{client_->id()}));
  for (const auto& client : clients_) client->introduce(&link);
  link.was_ready = true;
  coordinator_.ready(replica, monotonic_now());
  act();
  Rank& rank = at(replica.rank);
  if (!rank.was_ready) --starts_left_;
  rank.was_ready = true;
  rank.load = {};
  log(LogLevel::info, "Worker rank {} is ready", replica.rank);
  return {};
}

// One that was at work is dead from now on: its requests need not wait until its memory is freed. While it starts its
// exit follows at once, with the status that tells whether a restart makes sense; an adopted one's is not heard.
Result<void> FleetHost::on_fatal(ReplicaLink& link, const Frame& frame) {
  CHORUS_TRY(link.last_words, decode_fatal(frame.payload));
  if (!is_ready(link.replica().rank) && !link.adopted()) return {};
  link.reason = "failed";
  coordinator_.fault(link.replica(), monotonic_now());
  act();
  return {};
}

Result<void> FleetHost::on_load(ReplicaLink& link, const Frame& frame) {
  CHORUS_TRY(const LoadMessage message, decode_load(frame.payload));
  const Placement replica = link.replica();
  coordinator_.report(replica, message.load.waiting + message.load.running > 0);
  at(replica.rank).load = message.load;
  if (client_ == nullptr) return {};
  return client_->on_load(replica, message);
}

Result<void> FleetHost::on_wave_ended(const ReplicaLink& link, const Frame& frame) {
  CHORUS_TRY(const WaveMessage message, decode_wave(frame.payload));
  if (coordinator_.wave_ended(link.replica(), message.wave)) return {};
  return fail(ErrorCode::invalid_argument, "wave {} ended, which is not the one that was begun", message.wave);
}

// As much as each connection takes; the rest waits with the client, which bounds it.
void FleetHost::send_messages() {
  if (client_ == nullptr) return;
  for (Rank& rank : ranks_) {
    auto& to = rank.link;
    while (to && to->connected() && to->has_room()) {
      auto message = client_->next_message(to->replica());
      if (!message) break;
      to->queue(message->first, std::move(message->second));
    }
    if (to) to->pump();
  }
}

}  // namespace chorus

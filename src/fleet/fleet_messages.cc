#include <utility>

#include "base/check.h"
#include "base/log.h"
#include "fleet/fleet_impl.h"

namespace chorus {
namespace {

// The kernel closes a dying process's sockets a moment before its pidfd tells: how long to wait for the exit status
// before the replica counts as one that broke its connection.
constexpr int exit_after_close_ms = 10;

}  // namespace

void FleetImpl::read_from(int rank) {
  // What is not read now waits in the socket: the caller is to take what there is.
  while (link(rank) && link(rank)->connected() && dispatcher_.has_room_for_events()) {
    ReplicaLink& replica = *link(rank);
    auto frame = replica.receive();
    if (!frame.ok()) {
      if (frame.error().code == ErrorCode::unavailable) check_exit(rank, exit_after_close_ms);
      if (link(rank)) fault(*link(rank), frame.error().message);
      return;
    }
    if (!frame->has_value()) return;
    const Placement incarnation = replica.replica();  // last words are the end of an adopted link
    const auto handled = handle(replica, **frame);
    if (!handled.ok()) return fault(replica, handled.error().message);
    coordinator_.heartbeat(incarnation, monotonic_now());
  }
}

Result<void> FleetImpl::handle(ReplicaLink& link, const Frame& frame) {
  switch (static_cast<MessageType>(frame.type)) {
    case MessageType::hello:
      return on_hello(link, frame);
    case MessageType::ready:
      return on_ready(link, frame);
    case MessageType::events:
      return on_events(link, frame);
    case MessageType::load:
      return on_load(link, frame);
    case MessageType::heartbeat:
      return {};
    case MessageType::wave:
      return on_wave_ended(link, frame);
    case MessageType::contact:
      return take_contact(link.replica(), 0, frame);
    case MessageType::fatal:
      return on_fatal(link, frame);
    default:
      return fail(ErrorCode::invalid_argument, "message of type {} is none that an engine sends", frame.type);
  }
}

Result<HelloMessage> FleetImpl::greet(ReplicaLink& link, const Frame& frame) {
  CHORUS_TRY(HelloMessage hello, decode_hello(frame.payload));
  if (link.said_hello) return fail(ErrorCode::invalid_argument, "a second HELLO");
  if (hello.version != protocol_version) {
    return fail(ErrorCode::invalid_argument,
                "it speaks protocol version {}, this process {}: was the program replaced?", hello.version,
                protocol_version);
  }
  link.said_hello = true;
  return hello;
}

EngineStart FleetImpl::engine_start_of(Placement replica) const {
  EngineStart start;
  start.config = config_;
  start.model = model_;
  start.dp_rank = replica.rank;
  start.epoch = replica.epoch;
  start.kv_cache_bytes = kv_cache_bytes_;
  start.threads = threads_;
  start.isa = weights_.isa;
  start.dtype = weights_.dtype;
  start.shard_offsets = weights_.shard_offsets;
  const int workers = config_.parallel.replica_size();
  // The cores of another machine are its own business.
  for (int worker = 0; worker < workers && !cpu_sets_.empty() && !is_remote(replica.rank); ++worker) {
    start.worker_cpus.push_back(cpu_sets_[static_cast<std::size_t>(replica.rank * workers + worker)]);
  }
  return start;
}

Result<void> FleetImpl::on_hello(ReplicaLink& link, const Frame& frame) {
  CHORUS_TRY(const HelloMessage hello, greet(link, frame));
  if (link.adopted()) link.set_pid(hello.pid);
  EngineStart start = engine_start_of(link.replica());
  start.shows_progress = link.progress_memory().progress().watched();
  link.post(MessageType::config, encode(start), link.adopted() ? -1 : weights_.arena.fd());
  if (start.shows_progress) link.post(MessageType::progress, {}, link.progress_memory().fd());
  if (world_) link.post(MessageType::world, encode(WorldMessage{}), world_->fd());
  return {};
}

Result<void> FleetImpl::on_ready(ReplicaLink& link, const Frame& frame) {
  CHORUS_TRY(const ReadyMessage ready, decode_ready(frame.payload));
  const Placement replica = link.replica();
  if (coordinator_.state(replica.rank) != ReplicaState::starting)
    return fail(ErrorCode::invalid_argument, "READY out of turn");
  if (ready.profile != times_.profile) {
    return fail(ErrorCode::invalid_argument, "its numerics profile is {}, the fleet's {}", ready.profile,
                times_.profile);
  }
  link.post(MessageType::client, encode(ClientMessage{client_}));
  coordinator_.ready(replica, monotonic_now());
  act();
  if (!was_ready_[static_cast<std::size_t>(replica.rank)]) --starts_left_;
  was_ready_[static_cast<std::size_t>(replica.rank)] = true;
  loads_[static_cast<std::size_t>(replica.rank)] = {};
  log(LogLevel::info, "Worker rank {} is ready", replica.rank);
  return {};
}

// One that was at work is dead from now on: its requests need not wait until its memory is freed. While it starts its
// exit follows at once, with the status that tells whether a restart makes sense; an adopted one's is not heard.
Result<void> FleetImpl::on_fatal(ReplicaLink& link, const Frame& frame) {
  CHORUS_TRY(link.last_words, decode_fatal(frame.payload));
  if (!is_ready(link.replica().rank) && !link.adopted()) return {};
  link.reason = "failed";
  coordinator_.fault(link.replica(), monotonic_now());
  act();
  return {};
}

Result<void> FleetImpl::on_events(ReplicaLink& link, const Frame& frame) {
  CHORUS_TRY(std::vector<TokenEvent> events, decode_events(frame.payload));
  for (TokenEvent& event : events) {
    const Judgement judgement = dispatcher_.on_event(link.replica(), std::move(event));
    if (judgement.verdict == Verdict::faulty) return fail(ErrorCode::invalid_argument, "{}", judgement.fault);
  }
  return {};
}

Result<void> FleetImpl::on_load(ReplicaLink& link, const Frame& frame) {
  CHORUS_TRY(const LoadMessage message, decode_load(frame.payload));
  const EngineLoad& load = message.load;
  coordinator_.report(link.replica(), load.waiting + load.running > 0);
  loads_[static_cast<std::size_t>(link.replica().rank)] = load;
  for (const auto& [client, submissions] : message.submissions_received) {
    if (client != client_) continue;
    const Judgement judgement =
        dispatcher_.on_report(link.replica(), {load.waiting, load.running, load.kv_blocks_free, submissions});
    if (judgement.verdict == Verdict::faulty) return fail(ErrorCode::invalid_argument, "{}", judgement.fault);
  }
  return {};
}

Result<void> FleetImpl::on_wave_ended(const ReplicaLink& link, const Frame& frame) {
  CHORUS_TRY(const WaveMessage message, decode_wave(frame.payload));
  if (coordinator_.wave_ended(link.replica(), message.wave)) return {};
  return fail(ErrorCode::invalid_argument, "wave {} ended, which is not the one that was begun", message.wave);
}

// As much as each connection takes; the rest waits in the Dispatcher, which bounds it.
void FleetImpl::send_messages() {
  for (auto& to : links_) {
    while (to && to->connected() && to->has_room()) {
      const std::optional<ReplicaMessage> message = dispatcher_.take_message(to->replica());
      if (!message) break;
      switch (message->kind) {
        case ReplicaMessage::Kind::add:
          to->post(MessageType::add, encode(message->request));
          break;
        case ReplicaMessage::Kind::abort:
          to->post(MessageType::abort, encode(AbortMessage{message->id, {}}));
          break;
        case ReplicaMessage::Kind::abort_choice:
          to->post(MessageType::abort, encode(AbortMessage{message->id, message->choice}));
          break;
      }
    }
  }
}

}  // namespace chorus

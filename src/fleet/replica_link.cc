#include "fleet/replica_link.h"

#include <utility>

#include "worker/process_main.h"

namespace chorus {
namespace {

// What the kernel and the connection may hold of unsent bytes before the rest waits here.
constexpr std::size_t connection_bytes_max = std::size_t{32} << 20;

}  // namespace

Result<ReplicaLink> ReplicaLink::start(Placement replica, const std::string& program) {
  CHORUS_TRY(auto sockets, make_socket_pair());
  ReplicaLink link;
  link.replica_ = replica;
  CHORUS_TRY(link.connection_, make_socket_connection(std::move(sockets.first)));
  CHORUS_TRY(link.progress_, ProgressMemory::create());
  CHORUS_TRY(link.process_, ChildProcess::spawn_program(program, fmt::format("chorus engine dp={}", replica.rank),
                                                        sockets.second, engine_socket_fd));
  link.pid_ = link.process_.pid();
  return link;
}

ReplicaLink ReplicaLink::adopt(Placement replica, std::unique_ptr<Connection> connection) {
  ReplicaLink link;
  link.replica_ = replica;
  link.connection_ = std::move(connection);
  link.adopted_ = true;
  return link;
}

void ReplicaLink::post(MessageType type, std::string payload, int descriptor) {
  outbox_.push_back({type, std::move(payload), descriptor});
  pump();
}

pollfd ReplicaLink::poll_item() const {
  if (!connection_) return {-1, POLLIN, 0};
  pollfd item = chorus::poll_item(*connection_);
  if (!outbox_.empty()) item.events |= POLLOUT;
  return item;
}

bool ReplicaLink::has_room() const {
  return connection_ != nullptr && outbox_.empty() && connection_->queued_bytes() <= connection_bytes_max;
}

void ReplicaLink::queue(MessageType type, std::string payload) {
  note(connection_->queue(static_cast<std::uint8_t>(type), replica_.epoch, std::move(payload)));
}

void ReplicaLink::pump() {
  if (!connection_) return;
  Result<void> sent = connection_->flush();
  while (sent.ok() && !outbox_.empty() && connection_->queued_bytes() <= connection_bytes_max) {
    Outgoing message = std::move(outbox_.front());
    outbox_.pop_front();
    sent = connection_->send(static_cast<std::uint8_t>(message.type), replica_.epoch, std::move(message.payload),
                             message.descriptor);
  }
  note(sent);
}

void ReplicaLink::note(const Result<void>& sent) {
  if (sent.ok()) return;
  outbox_.clear();
  if (sent.error().code != ErrorCode::unavailable) send_error_ = sent.error();
}

Result<std::optional<Frame>> ReplicaLink::receive() {
  while (connection_) {
    auto frame = connection_->receive();
    if (!frame.ok()) {
      disconnect();
      return frame.error();
    }
    if (!frame->has_value()) break;
    const bool precedes_epoch = (*frame)->type == static_cast<std::uint8_t>(MessageType::hello) ||
                                (*frame)->type == static_cast<std::uint8_t>(MessageType::fatal);
    if ((*frame)->epoch == replica_.epoch || (precedes_epoch && (*frame)->epoch == 0)) return std::move(*frame);
  }
  return std::optional<Frame>();
}

Result<HelloMessage> ReplicaLink::take_hello(const Frame& frame) {
  CHORUS_TRY(HelloMessage hello, decode_hello(frame.payload));
  if (said_hello_) return fail(ErrorCode::invalid_argument, "a second HELLO");
  if (hello.version != protocol_version) {
    return fail(ErrorCode::invalid_argument,
                "it speaks protocol version {}, this process {}: was the program replaced?", hello.version,
                protocol_version);
  }
  said_hello_ = true;
  return hello;
}

}  // namespace chorus

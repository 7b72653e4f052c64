#include "fleet/client_link.h"

#include <utility>

namespace chorus {

void ClientLink::introduce(ReplicaLink* replica) {
  if (!serves_.contains(replica->replica().rank)) return;
  auto pair = make_socket_pair();
  if (!pair.ok()) {
    error_ = pair.error();
    return;
  }
  replica->post(MessageType::client, encode(ClientMessage{client_}), pair->first.get());
  introductions_[replica->replica().rank] = {replica->replica(), std::move(pair->second)};
}

void ClientLink::tell(const ReplicaNews& news, const std::string& reason) {
  if (!serves_.contains(news.replica.rank)) return;
  const auto found = introductions_.find(news.replica.rank);
  const bool lives = news.state != ReplicaNews::State::died && news.state != ReplicaNews::State::removed;
  int socket = -1;
  if (lives && found != introductions_.end() && found->second.replica == news.replica) {
    socket = found->second.socket.get();
  }
  auto sent =
      connection_->send(static_cast<std::uint8_t>(MessageType::news), 0, encode(NewsMessage{news, reason}), socket);
  if (!sent.ok()) error_ = sent.error();
  if (socket >= 0) found->second.socket.reset();
}

Result<ClientLink::Said> ClientLink::turn() {
  Said said;
  while (!error_) {
    CHORUS_TRY(const std::optional<Frame> frame, connection_->receive());
    if (!frame) break;
    CHORUS_TRY_VOID(take(*frame, &said));
  }
  if (error_) return *error_;
  CHORUS_TRY_VOID(connection_->flush());
  return said;
}

Result<void> ClientLink::take(const Frame& frame, Said* said) {
  switch (static_cast<MessageType>(frame.type)) {
    case MessageType::note: {
      CHORUS_TRY(const ClientNote note, decode_note(frame.payload));
      said->notes.push_back(note);
      return {};
    }
    case MessageType::replica_fault: {
      CHORUS_TRY(ReplicaFaultMessage fault, decode_replica_fault(frame.payload));
      said->faults.push_back(std::move(fault));
      return {};
    }
    default:
      return fail(ErrorCode::invalid_argument, "message of type {} is none that a front end sends", frame.type);
  }
}

void ClientLink::append_descriptors(std::vector<pollfd>* items) const {
  items->push_back(poll_item(*connection_));
}

}  // namespace chorus

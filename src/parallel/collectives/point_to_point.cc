#include "parallel/group.h"

namespace chorus {

Result<void> Group::send(std::span<const std::byte> data, int peer) {
  const Transport::Outgoing outgoing{member(peer), data};
  return transport_->exchange({&outgoing, 1}, {});
}

Result<void> Group::receive(std::span<std::byte> data, int peer) {
  const Transport::Incoming incoming{member(peer), data};
  return transport_->exchange({}, {&incoming, 1});
}

Result<void> Group::send_message(const std::string& message, int peer) {
  const std::uint64_t bytes = message.size();
  const Transport::Outgoing outgoing[] = {{member(peer), std::as_bytes(std::span(&bytes, 1))},
                                          {member(peer), std::as_bytes(std::span(message.data(), message.size()))}};
  return transport_->exchange(outgoing, {});
}

Result<void> Group::receive_message(std::string* message, int peer, std::size_t bytes_max) {
  std::uint64_t bytes = 0;
  CHORUS_TRY_VOID(receive(std::as_writable_bytes(std::span(&bytes, 1)), peer));
  if (bytes > bytes_max) {
    const Error error =
        fail(ErrorCode::invalid_argument, "rank {} announced a message of {} bytes, at most {} are taken", member(peer),
             bytes, bytes_max);
    transport_->abort(error.message);
    return error;
  }
  message->resize(bytes);
  return receive(std::as_writable_bytes(std::span(message->data(), message->size())), peer);
}

}  // namespace chorus

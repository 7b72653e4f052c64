#include "net/handshake_socket.h"

#include <sys/socket.h>

#include <cerrno>
#include <cstring>

#include "net/authenticated_connection.h"

namespace chorus {

Result<bool> HandshakeSocket::advance() {
  while (true) {
    CHORUS_TRY(const bool sent, send_output());
    if (!sent) return false;
    if (handshake_.done()) return true;
    CHORUS_TRY(const bool read, read_input());
    if (!read) return false;
    if (input_.size() < handshake_.bytes_wanted()) continue;
    const auto fed = handshake_.feed(input_);
    input_.clear();
    output_ = handshake_.take_output();
    if (fed.ok()) continue;
    (void)send_output();  // why it was refused; a new socket's buffer takes these few bytes
    return with_context(fed.error(), peer_);
  }
}

Result<bool> HandshakeSocket::send_output() {
  while (!output_.empty()) {
    const ssize_t sent = ::send(socket_.get(), output_.data(), output_.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent > 0) {
      output_.erase(0, static_cast<std::size_t>(sent));
    } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
      return false;
    } else if (errno != EINTR) {
      return fail(ErrorCode::unavailable, "{}: sending in the handshake: {}", peer_, std::strerror(errno));
    }
  }
  return true;
}

Result<bool> HandshakeSocket::read_input() {
  char bytes[handshake_bytes_max];
  while (true) {
    const ssize_t got = ::recv(socket_.get(), bytes, handshake_.bytes_wanted() - input_.size(), MSG_DONTWAIT);
    if (got > 0) {
      input_.append(bytes, static_cast<std::size_t>(got));
      return true;
    }
    if (got == 0) return fail(ErrorCode::unavailable, "{} closed the connection during the handshake", peer_);
    if (errno == EAGAIN || errno == EWOULDBLOCK) return false;
    if (errno != EINTR)
      return fail(ErrorCode::unavailable, "{}: receiving in the handshake: {}", peer_, std::strerror(errno));
  }
}

Result<std::unique_ptr<Connection>> HandshakeSocket::connection(const ConnectionLimits& limits) {
  auto [socket, keys] = take();
  CHORUS_TRY(auto inner, make_socket_connection(std::move(socket), keys ? with_room_for_tags(limits) : limits));
  return keys ? make_authenticated_connection(std::move(inner), *keys) : std::move(inner);
}

}  // namespace chorus

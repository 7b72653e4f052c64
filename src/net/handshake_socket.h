// The handshake of one connected socket, as far as it has come. The owner's loop waits, for wanted() and until
// deadline().
#pragma once

#include <poll.h>

#include <memory>
#include <optional>
#include <string>

#include "base/clock.h"
#include "net/connection.h"
#include "net/handshake.h"

namespace chorus {

// A socket whose peer has proven itself; nothing was read of it beyond the handshake.
struct ProvenSocket {
  UniqueFd socket;
  std::optional<SessionKeys> keys;  // nullopt: a cluster without a key
};

class HandshakeSocket {
 public:
  HandshakeSocket(UniqueFd socket, Handshake handshake, std::string peer, Nanoseconds deadline)
      : socket_(std::move(socket)), handshake_(std::move(handshake)), peer_(std::move(peer)), deadline_(deadline) {
    output_ = handshake_.take_output();
  }
  // Sends and reads what it can, never waits. True: done. Reads no byte beyond the handshake.
  Result<bool> advance();
  pollfd wanted() const { return {socket_.get(), static_cast<short>(output_.empty() ? POLLIN : POLLOUT), 0}; }
  // When done, one of the two, once: the socket itself, or a connection over it.
  ProvenSocket take() { return {std::move(socket_), handshake_.session_keys()}; }
  Result<std::unique_ptr<Connection>> connection(const ConnectionLimits& limits);
  const std::string& peer() const { return peer_; }
  Nanoseconds deadline() const { return deadline_; }

 private:
  Result<bool> send_output();  // false: the peer takes no more now
  Result<bool> read_input();   // false: there is nothing now

  UniqueFd socket_;
  Handshake handshake_;
  std::string peer_;
  Nanoseconds deadline_;
  std::string output_, input_;
};

}  // namespace chorus

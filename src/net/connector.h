// Makes a connection to a FrameListener on another machine.
#pragma once

#include <poll.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "net/authentication.h"
#include "net/connection.h"
#include "net/handshake_socket.h"
#include "net/tcp.h"

namespace chorus {

// One attempt; never waits. The owner's loop does, for wanted() and until deadline().
class Connector {
 public:
  // Tries the addresses in their order. `key`: null for a cluster without one.
  Connector(std::vector<tcp::Address> addresses, std::shared_ptr<const ClusterKey> key, Nanoseconds deadline,
            const ConnectionLimits& limits = {});

  // The connection once it is made, null before. Errors: unavailable (nobody listens: try again), deadline_exceeded,
  // invalid_argument (the peer and this process do not belong together: no use in trying again).
  Result<std::unique_ptr<Connection>> advance(Nanoseconds now);
  pollfd wanted() const;
  Nanoseconds deadline() const { return deadline_; }

 private:
  Result<void> begin_next();

  std::vector<tcp::Address> addresses_;
  std::size_t next_ = 0;
  std::shared_ptr<const ClusterKey> key_;
  Nanoseconds deadline_;
  ConnectionLimits limits_;
  UniqueFd connecting_;
  std::optional<HandshakeSocket> handshake_;
};

// Waits, and tries again until the deadline while nobody listens.
Result<std::unique_ptr<Connection>> connect_to(const std::string& host, int port,
                                               const std::shared_ptr<const ClusterKey>& key, Nanoseconds deadline,
                                               const ConnectionLimits& limits = {});

}  // namespace chorus

// Takes connections from other machines and gives those that have proven themselves (net/handshake.h). Never waits: the
// owner's loop does, on append_descriptors() and until next_deadline().
//
// What a stranger can cost: handshake_bytes_max bytes of memory and one descriptor for at most handshake_timeout_ms,
// pending_max times; where more come at once, the one that has waited longest goes. Refusals are logged, at most one
// line per second.
#pragma once

#include <poll.h>

#include <deque>
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

struct ListenOptions {
  std::string address = "127.0.0.1";           // name or number, of this host
  int port = 0;                                // 0: the system chooses
  std::shared_ptr<const ClusterKey> key = {};  // null: none, which a loopback address alone may have
  std::size_t pending_max = 64;                // connections in their handshake
  int handshake_timeout_ms = 5'000;
  ConnectionLimits limits = {};
};

class FrameListener {
 public:
  // Errors: invalid_argument (not loopback and no key), unavailable (the address cannot be had).
  static Result<FrameListener> listen(const ListenOptions& options);

  const tcp::Address& address() const { return address_; }  // with the port that was chosen

  void append_descriptors(std::vector<pollfd>* items) const;
  std::optional<Nanoseconds> next_deadline() const;

  struct Accepted {
    std::unique_ptr<Connection> connection;
    std::string peer;  // its address
  };
  // Advances every handshake; returns the connections that completed theirs.
  std::vector<Accepted> accept(Nanoseconds now);
  std::size_t pending() const { return pending_.size(); }
  // Why the last connection that did not get through was refused; empty: none was.
  const std::string& last_refusal() const { return last_refusal_; }

 private:
  FrameListener() = default;
  void take_new(Nanoseconds now);
  void refuse(const std::string& why, Nanoseconds now);

  ListenOptions options_;
  UniqueFd socket_;
  tcp::Address address_;
  std::deque<HandshakeSocket> pending_;  // oldest first
  Nanoseconds paused_until_ = 0;         // no descriptors are left for new ones
  Nanoseconds log_again_at_ = 0;
  std::uint64_t refusals_unlogged_ = 0;
  std::string last_refusal_;
};

}  // namespace chorus

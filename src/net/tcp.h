// Non-blocking TCP sockets. A peer that falls silent (its node lost power, its cable was pulled) is given up after
// about ten seconds: keepalive while nothing is sent, TCP_USER_TIMEOUT while something is.
#pragma once

#include <sys/socket.h>

#include <functional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "net/authentication.h"
#include "net/unique_fd.h"

namespace chorus::tcp {

struct Address {
  sockaddr_storage name{};
  socklen_t bytes = 0;
  std::string text() const;  // "10.0.0.1 port 29550"
  std::string host() const;  // "10.0.0.1"
  bool is_loopback() const;
  bool is_wildcard() const;  // 0.0.0.0, ::: to listen on, not to be reached at
  int port() const;
};

// What the name or number `host` stands for, best first, never empty. Asks the resolver, which may take a minute where
// its server does not answer: it is not waited for longer than to `deadline`, or until `stop` (may be empty; asked ten
// times a second) says so. Errors: unavailable (no such name), deadline_exceeded, cancelled.
Result<std::vector<Address>> resolve(const std::string& host, int port, Nanoseconds deadline,
                                     const std::function<bool()>& stop = {});
// With ten seconds for it.
Result<std::vector<Address>> resolve(const std::string& host, int port);

// Port 0: the system chooses, local_address() tells. `shares_port`: others of this user's that say so too may listen
// there as well, and the system spreads what connects over them (SO_REUSEPORT).
Result<UniqueFd> listen(const Address& address, int backlog, bool shares_port = false);
// Refuses an address that other machines can reach where there is no key (null), and says how to make one.
Result<void> check_guarded(const Address& address, const ClusterKey* key);
// The next connection, or an invalid descriptor when there is none now. resource_exhausted: no descriptor or memory for
// it.
Result<UniqueFd> accept(int listener);

// Under way when it returns: wait for POLLOUT, then finish_connect().
Result<UniqueFd> begin_connect(const Address& address);
Result<void> finish_connect(int socket);

// The end of silence by TCP_USER_TIMEOUT also hits a peer that is well and does not read: full buffers count as
// silence. For a connection whose peer may be busy for longer; a lost node must then be noticed by another one.
void let_peer_be_busy(int socket);

Result<Address> local_address(int socket);
Result<Address> peer_address(int socket);

}  // namespace chorus::tcp

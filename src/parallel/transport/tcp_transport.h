// The Transport of a world that spans nodes: two TCP connections between any two ranks, one for their bytes and one for
// news about the world (a reason to end, a farewell). Why not Gloo: docs/decisions/006. With a cluster key each
// connection begins with net's handshake, and every byte on it is under a tag (tcp_channel.h, docs/decisions/008).
//
// Failure. A peer whose connection ends without a farewell is dead: the world breaks at once. A peer that said farewell
// (its transport was destroyed) is missed by those that need something of it: their call fails, and so breaks the
// world. A node that loses power or network is noticed after about ten seconds. Bytes that were tampered with break the
// world; what wait_for() announced may still turn out so.
#pragma once

#include <memory>
#include <span>
#include <string>

#include "base/clock.h"
#include "base/result.h"
#include "net/authentication.h"
#include "net/unique_fd.h"
#include "parallel/store/store.h"
#include "parallel/transport/transport.h"

namespace chorus {

struct TcpTransportOptions {
  std::string address = "127.0.0.1";      // of this host, where the other ranks can reach it
  std::shared_ptr<const ClusterKey> key;  // null: none, which a loopback address alone may have
  int join_timeout_ms = 300'000;          // of join(), from its call
  int exchange_timeout_ms = 300'000;
};

inline constexpr int tcp_world_size_max = 1024;

// Where the other ranks of a world find one rank. Open a door, bring its contact to all others and theirs here, join.
class TcpDoor {
 public:
  // Listens from now on, at a port that the system chooses. Errors: invalid_argument (an address that other machines
  // can reach without a key, or one that stands for all of the host's), unavailable (it cannot be had).
  static Result<TcpDoor> open(const TcpTransportOptions& options);

  // Bytes, of any value, at most some hundred.
  const std::string& contact() const { return contact_; }

  // `contacts`: of all ranks, by rank, this one's included. Once; the door is closed afterwards. Nobody but a holder of
  // the contacts, and of the key, can come in. Errors: invalid_argument in all ranks alike (keys that are not the same,
  // or not everywhere; loopback addresses among others), deadline_exceeded (who is missing), unavailable (a rank that
  // was there is gone).
  Result<std::unique_ptr<Transport>> join(int rank, std::span<const std::string> contacts);

 private:
  friend Result<std::unique_ptr<Transport>> join_tcp_world(Store&, int, int, const TcpTransportOptions&);
  TcpDoor() = default;
  Result<std::unique_ptr<Transport>> join(int rank, std::span<const std::string> contacts, Nanoseconds deadline);

  TcpTransportOptions options_;
  UniqueFd listener_;
  std::string contact_;
};

// The contacts go through `store`: every rank calls it once, with the same keys free in it. A rank that cannot open its
// door is the end for all, with its reason. When it returns, this rank needs nothing more of the store, and the store's
// host may go when it has returned in all ranks.
Result<std::unique_ptr<Transport>> join_tcp_world(Store& store, int rank, int size, const TcpTransportOptions& options);

}  // namespace chorus

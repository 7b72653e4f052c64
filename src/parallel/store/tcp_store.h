// The Store over TCP, in the protocol of torch.distributed's TCPStore: a client can use the server that torchrun's
// parent process runs on MASTER_PORT, and torch's client can use ours. Checked against torch 2.15 (tests/launchers),
// whose server has two implementations, libuv and the older one.
//
// The protocol itself has neither authentication nor encryption: whoever reaches a server can read and write every
// key. With a cluster's key client and server speak it in authenticated frames (net/frame_listener.h), which torch's
// cannot; without one the server listens on loopback addresses only.
#pragma once

#include <memory>
#include <string>

#include "base/result.h"
#include "net/authentication.h"
#include "parallel/store/store.h"

namespace chorus {

// Tries to connect until timeout_ms have passed. `key`: of a server that has one. After a call that failed for another
// reason than a wait that ran out the connection is broken, and later calls say so.
Result<std::unique_ptr<Store>> connect_tcp_store(const std::string& host, int port, int timeout_ms,
                                                 std::shared_ptr<const ClusterKey> key = nullptr);

// Runs in its own thread from start() to the destructor, which closes all connections. What a client may hold is
// bounded: keys and values as in store.h, 1 GiB in all, 4,096 connections. A client that sends what is no request is
// cut off.
class TcpStoreServer {
 public:
  // `address` of this host; port 0: chosen by the system. Errors: invalid_argument (not loopback and no key),
  // unavailable (the address cannot be had).
  static Result<std::unique_ptr<TcpStoreServer>> start(const std::string& address, int port,
                                                       std::shared_ptr<const ClusterKey> key = nullptr);
  virtual ~TcpStoreServer() = default;
  virtual int port() const = 0;
};

}  // namespace chorus

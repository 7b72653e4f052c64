// The Store over TCP, in the protocol of torch.distributed's TCPStore: a client can use the server that torchrun's
// parent process runs on MASTER_PORT, and torch's client can use ours. Checked against torch 2.15 (tests/launchers),
// whose server has two implementations, libuv and the older one.
//
// The protocol has neither authentication nor encryption: the server listens on the loopback address unless told
// otherwise, and whoever reaches it can read and write every key.
#pragma once

#include <memory>
#include <string>

#include "base/result.h"
#include "dist/store.h"

namespace chorus {

// Tries to connect until timeout_ms have passed. After a call that failed for another reason than a wait that ran out
// the connection is broken, and later calls say so.
Result<std::unique_ptr<Store>> connect_tcp_store(const std::string& host, int port, int timeout_ms);

// Runs in a thread of its own from start() to the destructor, which closes all connections. What a client may hold is
// bounded: keys and values as in store.h, 1 GiB in all, 4,096 connections. A client that sends what is no request is
// cut off.
class TcpStoreServer {
 public:
  // `address` of this host; port 0: chosen by the system.
  static Result<std::unique_ptr<TcpStoreServer>> start(const std::string& address, int port);
  virtual ~TcpStoreServer() = default;
  virtual int port() const = 0;
};

}  // namespace chorus

// The Transport of a world that spans nodes: two TCP connections between any two ranks, one for their bytes and one for
// news about the world (a reason to end, a farewell). Why not Gloo: docs/decisions/006.
//
// Failure. A peer whose connection ends without a farewell is dead: the world breaks at once. A peer that said farewell
// (its transport was destroyed) is missed by those that need something of it: their call fails, and so breaks the
// world. A node that loses power or network is noticed after about ten seconds.
#pragma once

#include <memory>
#include <string>

#include "base/result.h"
#include "dist/store.h"
#include "dist/transport.h"

namespace chorus {

struct TcpTransportOptions {
  std::string address = "127.0.0.1";  // of this host, where the other ranks can reach it
  int join_timeout_ms = 300'000;
  int exchange_timeout_ms = 300'000;
};

inline constexpr int tcp_world_size_max = 1024;

// Every rank calls it once, with the same keys free in `store`. Nobody but a holder of the store's values can join:
// each connection opens with the listener's random token. When it returns, this rank needs nothing more of the store,
// and the store's host may go when it has returned in all ranks.
Result<std::unique_ptr<Transport>> join_tcp_world(Store& store, int rank, int size, const TcpTransportOptions& options);

}  // namespace chorus

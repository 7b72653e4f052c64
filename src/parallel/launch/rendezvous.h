// From processes that know their ranks to a Transport between them: over a Store they compare what they are, and then
// join: through shared memory inside a node, through TCP between nodes.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "net/authentication.h"
#include "parallel/launch/launcher.h"
#include "parallel/store/store.h"
#include "parallel/store/tcp_store.h"
#include "parallel/transport/transport.h"

namespace chorus {

// Where the ranks of a launcher's job meet; the server is there in the one process that runs it. Keep it until
// join_world() has returned in all ranks: rank 0's barrier over the new transport tells.
struct MeetingPlace {
  std::unique_ptr<TcpStoreServer> server;
  std::shared_ptr<Store> store;  // its keys begin with chorus/<run_id>/
};
// A world of one gets a store in memory. A server of ours is guarded by the key if there is one. Ranks that are all on
// this node meet there at the loopback address; those that may be on others need the key, and the server listens on all
// addresses of the host. Errors: invalid_argument (ranks may be on several nodes, and no key).
Result<MeetingPlace> open_meeting_place(const LauncherEnvironment& environment, std::shared_ptr<const ClusterKey> key,
                                        int timeout_ms);

// Processes with the same one can share memory and reach each other's abstract sockets. Its first word is the machine's
// boot, the same in all containers of a machine.
Result<std::string> node_identity();

struct JoinOptions {
  std::string world = "world";        // several worlds may meet in one store, by name
  int timeout_ms = 300'000;           // of joining
  int exchange_timeout_ms = 300'000;  // of every Transport::exchange()
  // What must be the same in all ranks: version, model, dtype, flags. At most 256 pairs.
  std::vector<std::pair<std::string, std::string>> fingerprint;
  // Ranks with the same identity share memory. Empty: found out (boot, network namespace, user). Tests pretend.
  std::string node_identity;
  // Of this host, for ranks on other nodes. Empty: the one by which the store is reached.
  std::string address;
  // What ranks on several nodes prove to each other; null: none, which loopback addresses alone may do without.
  std::shared_ptr<const ClusterKey> key;
};

// Every rank of the world calls it once. A world of one has no transport: null. Errors, in all ranks: invalid_argument
// (a fingerprint differs from rank 0's: the name, both values; or a rank that has joined already), deadline_exceeded
// (the ranks that are missing; they are logged every 10 s).
Result<std::shared_ptr<Transport>> join_world(std::shared_ptr<Store> store, int rank, int size,
                                              const JoinOptions& options);

}  // namespace chorus

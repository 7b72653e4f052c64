// Where ranks meet, and what tells their nodes apart.
#include <unistd.h>

#include <climits>
#include <fstream>

#include "base/check.h"
#include "config/engine_config.h"
#include "parallel/launch/rendezvous.h"

namespace chorus {

Result<std::string> node_identity() {
  std::string boot;
  std::getline(std::ifstream("/proc/sys/kernel/random/boot_id") >> std::ws, boot);
  char network[PATH_MAX] = {};
  const ssize_t length = ::readlink("/proc/self/ns/net", network, sizeof network - 1);
  if (boot.empty() || length <= 0) {
    return fail(ErrorCode::internal, "this node has no identity: /proc has no boot_id or ns/net");
  }
  return fmt::format("{} {} {}", boot, network, ::geteuid());
}

Result<MeetingPlace> open_meeting_place(const LauncherEnvironment& environment, std::shared_ptr<const ClusterKey> key,
                                        int timeout_ms) {
  const bool spans = environment.may_span_nodes();
  if (spans && !key) {
    const bool unknown = environment.local_world_size == 0;
    return missing_cluster_key(
        fmt::format("the ranks meet at {} ({}), which other machines reach", environment.store_host,
                    unknown ? "MASTER_ADDR; 127.0.0.1 would do for ranks of one machine" : "MASTER_ADDR"));
  }
  MeetingPlace place;
  std::shared_ptr<Store> store;
  if (!environment.store_file.empty()) {
    CHORUS_TRY(store, open_file_store(environment.store_file));
  } else if (environment.store_host.empty()) {
    CHECK(environment.world_size == 1, "{} ranks and no place to meet", environment.world_size);
    store = make_memory_store();
  } else {
    if (environment.launchers_store) key.reset();  // its protocol has none
    if (environment.hosts_store()) {
      // A name of this host may resolve to another address here than on other nodes.
      auto server = TcpStoreServer::start(spans ? "0.0.0.0" : "127.0.0.1", environment.store_port, key);
      if (!server.ok()) {
        return with_context(server.error(), "rank 0 holds the store at MASTER_PORT; choose a free one for all ranks");
      }
      place.server = std::move(*server);
    }
    const std::string host = spans || environment.launchers_store ? environment.store_host : "127.0.0.1";
    CHORUS_TRY(store, connect_tcp_store(host, environment.store_port, timeout_ms, key));
  }
  place.store = make_prefix_store(std::move(store), "chorus/" + environment.run_id);
  return place;
}

}  // namespace chorus

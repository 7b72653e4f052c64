// The host's end of a front end in another process: it gets the news of all replicas, with a socket to each that is
// ready, and gives notes. The requests go over those sockets, past the host.
#pragma once

#include <poll.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "cluster/replica_news.h"
#include "fleet/replica_link.h"
#include "net/connection.h"
#include "protocol/messages.h"

namespace chorus {

class ClientLink {
 public:
  // `serves`: the replicas that it sends requests to; it hears of no other.
  ClientLink(ClientId client, std::unique_ptr<Connection> connection, RankRange serves)
      : client_(client), connection_(std::move(connection)), serves_(serves) {}

  ClientId client() const { return client_; }
  // The replica is READY: makes it a socket to this client, if this client serves it. Once for each of its
  // incarnations, before the news of it.
  void introduce(ReplicaLink* replica);
  // `reason`: of a death. Of one that it does not serve it says nothing.
  void tell(const ReplicaNews& news, const std::string& reason);

  struct Said {
    std::vector<ClientNote> notes;
    std::vector<ReplicaFaultMessage> faults;
  };
  // What it has said since, and sends on what waits. An error: it is gone, or spoke garbage; so is one that does not
  // read its news.
  Result<Said> turn();

  void append_descriptors(std::vector<pollfd>* items) const;

 private:
  ClientId client_;
  std::unique_ptr<Connection> connection_;
  RankRange serves_;
  struct Introduction {
    Placement replica;
    UniqueFd socket;  // until the news of it takes it along
  };
  Result<void> take(const Frame& frame, Said* said);

  std::map<int, Introduction> introductions_;  // by rank
  std::optional<Error> error_;
};

}  // namespace chorus

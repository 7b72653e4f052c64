// The connections of one rank to all others. Private to this room.
#pragma once

#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "parallel/transport/tcp_channel.h"
#include "parallel/transport/tcp_contact.h"
#include "parallel/transport/transport.h"

namespace chorus {

struct TcpLink {
  TcpChannel data;
  TcpChannel news;
};

struct TcpMeeting {
  int listener;  // where the door of `rank` listens
  int rank;
  const std::vector<TcpContact>& contacts;  // by rank, the own one included
  const ClusterKey* key;                    // null: none
  Nanoseconds deadline;
};

// One link a rank; the own one is empty.
Result<std::vector<TcpLink>> connect_tcp_links(const TcpMeeting& meeting);

std::unique_ptr<Transport> make_tcp_transport(int rank, int timeout_ms, std::vector<TcpLink> links);

}  // namespace chorus

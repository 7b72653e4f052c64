// The connections of one rank to all others, made through a Store. Private to this room.
#pragma once

#include <vector>

#include "base/result.h"
#include "dist/tcp_transport.h"
#include "net/unique_fd.h"

namespace chorus {

struct TcpLink {
  UniqueFd data;
  UniqueFd news;
};

// One link a rank; the own one is empty.
Result<std::vector<TcpLink>> connect_tcp_links(Store& store, int rank, int size, const TcpTransportOptions& options);

}  // namespace chorus

// What carries a store's protocol, which is a stream of bytes each way: a bare socket, as torch's clients and server
// have it, or the frames of a connection under the cluster's key. Nothing here waits. Private to this room.
#pragma once

#include <poll.h>

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "net/authentication.h"
#include "net/connection.h"

namespace chorus {

// One end of a connection between a store and a client of it.
class StoreStream {
 public:
  virtual ~StoreStream() = default;
  // Queues the bytes and writes what the peer takes now. Errors: unavailable (the peer is gone).
  virtual Result<void> send(std::string_view bytes) = 0;
  virtual Result<void> flush() = 0;
  virtual std::size_t queued_bytes() const = 0;
  // Appends some of what has come. True: it may have more, of which poll(2) does not tell. Errors: unavailable (closed
  // by the peer, and everything was given), invalid_argument (not what the peer sent).
  virtual Result<bool> receive(std::string* bytes) = 0;
  // For poll(2): POLLIN always, POLLOUT while queued_bytes() > 0.
  virtual int fd() const = 0;
};

std::unique_ptr<StoreStream> make_bare_stream(UniqueFd socket);
std::unique_ptr<StoreStream> make_guarded_stream(std::unique_ptr<Connection> connection);

// Where a store's clients come in.
class StoreDoor {
 public:
  virtual ~StoreDoor() = default;
  virtual int port() const = 0;
  virtual void append_descriptors(std::vector<pollfd>* items) const = 0;
  virtual std::optional<Nanoseconds> next_deadline() const = 0;
  virtual std::vector<std::unique_ptr<StoreStream>> accept(Nanoseconds now) = 0;
};

// Bare without a key, which a loopback address alone may have; guarded with one. Errors: invalid_argument (neither),
// unavailable (the address cannot be had).
Result<std::unique_ptr<StoreDoor>> open_store_door(const std::string& address, int port,
                                                   std::shared_ptr<const ClusterKey> key);

// The other side of such a door. Tries again until the deadline: the store may not be there yet. Errors:
// deadline_exceeded, invalid_argument (the store has another key).
Result<std::unique_ptr<StoreStream>> connect_store_stream(const std::string& host, int port,
                                                          std::shared_ptr<const ClusterKey> key, Nanoseconds deadline);

}  // namespace chorus

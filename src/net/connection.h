// Frames to and from one peer. Three kinds: a stream socket between processes (Unix; over TCP no descriptors can go
// along), the same with authenticated frames between machines (net/authenticated_connection.h), and a twin in memory
// for tests and simulation. Nothing blocks but wait(), which has a deadline.
//
// Single-threaded. A connection is in one of two states: open, or broken for good (the peer closed, or sent what is no
// frame). Frames that arrived before a clean close are still delivered.
#pragma once

#include <poll.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "base/result.h"
#include "net/frame.h"

namespace chorus {

struct ConnectionLimits {
  std::size_t payload_bytes_max = frame_payload_bytes_max;
  std::size_t send_queue_bytes_max = 2 * frame_payload_bytes_max;  // accepted and not yet taken by the kernel
};

class Connection {
 public:
  virtual ~Connection() = default;

  // Queues the frame and writes nothing. `descriptor` (or -1) is duplicated; the caller's stays open. Errors:
  // invalid_argument (payload over the limit), resource_exhausted (queue full: flush and try again; nothing was
  // queued), unavailable (the peer is gone).
  virtual Result<void> queue(std::uint8_t type, std::uint32_t epoch, std::string payload, int descriptor = -1) = 0;
  // The same, and writes what can be written. Who has many frames queues them and flushes once.
  Result<void> send(std::uint8_t type, std::uint32_t epoch, std::string payload, int descriptor = -1) {
    CHORUS_TRY_VOID(queue(type, epoch, std::move(payload), descriptor));
    return flush();
  }
  // Writes queued bytes as far as the peer takes them.
  virtual Result<void> flush() = 0;
  virtual std::size_t queued_bytes() const = 0;

  // The next whole frame if there is one. Errors: unavailable (closed by the peer, all frames were delivered; a frame
  // cut off in the middle is dropped and named), invalid_argument (garbage).
  virtual Result<std::optional<Frame>> receive() = 0;

  // Waits until receive() may give something or, if bytes are queued, some could be flushed; at most timeout_ms.
  // False: the time ran out.
  virtual Result<bool> wait(int timeout_ms) = 0;

  // -1: the in-memory twin.
  virtual int fd() const = 0;
};

// For poll(2) in the owner's loop: POLLIN always, POLLOUT while bytes are queued.
pollfd poll_item(const Connection& connection);

// Takes a connected stream socket; makes it non-blocking and close-on-exec.
Result<std::unique_ptr<Connection>> make_socket_connection(UniqueFd socket, const ConnectionLimits& limits = {});

// Both ends of a socketpair(2), close-on-exec.
Result<std::pair<UniqueFd, UniqueFd>> make_socket_pair();

// Two ends joined in memory. wait() does not wait: it tells at once whether there is something (nobody else could add
// it).
std::pair<std::unique_ptr<Connection>, std::unique_ptr<Connection>> make_memory_connections(
    const ConnectionLimits& limits = {});

// flush() and wait() until everything queued was taken, or deadline_exceeded.
Result<void> flush_within(Connection* connection, int timeout_ms);
// wait() and receive() until a frame came, or deadline_exceeded.
Result<Frame> receive_within(Connection* connection, int timeout_ms);

}  // namespace chorus

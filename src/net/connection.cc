#include "net/connection.h"

#include "base/clock.h"

namespace chorus {

pollfd poll_item(const Connection& connection) {
  return {connection.fd(), static_cast<short>(connection.queued_bytes() > 0 ? POLLIN | POLLOUT : POLLIN), 0};
}

Result<void> flush_within(Connection* connection, int timeout_ms) {
  const Nanoseconds deadline = deadline_after(timeout_ms);
  while (true) {
    CHORUS_TRY_VOID(connection->flush());
    if (connection->queued_bytes() == 0) return {};
    CHORUS_TRY(const bool ready, connection->wait(milliseconds_until(deadline)));
    if (!ready) {
      return fail(ErrorCode::deadline_exceeded, "the peer did not take {} queued bytes within {} ms",
                  connection->queued_bytes(), timeout_ms);
    }
  }
}

Result<Frame> receive_within(Connection* connection, int timeout_ms) {
  const Nanoseconds deadline = deadline_after(timeout_ms);
  while (true) {
    CHORUS_TRY(std::optional<Frame> frame, connection->receive());
    if (frame.has_value()) return std::move(*frame);
    // A peer that left can take nothing, but what it said last is still to be read: receive() tells when that is done.
    if (connection->queued_bytes() > 0) static_cast<void>(connection->flush().ok());
    CHORUS_TRY(const bool ready, connection->wait(milliseconds_until(deadline)));
    if (!ready) {
      return fail(ErrorCode::deadline_exceeded, "no message from the peer within {} ms", timeout_ms);
    }
  }
}

}  // namespace chorus

#include "net/connection.h"

#include "base/clock.h"

namespace chorus {
namespace {

// Milliseconds until `deadline`, rounded up, never negative.
int milliseconds_left(Nanoseconds deadline) {
  const Nanoseconds left = deadline - monotonic_now();
  return left <= 0 ? 0 : static_cast<int>((left + 999'999) / 1'000'000);
}

}  // namespace

Result<void> flush_within(Connection* connection, int timeout_ms) {
  const Nanoseconds deadline = monotonic_now() + Nanoseconds{timeout_ms} * 1'000'000;
  while (true) {
    CHORUS_TRY_VOID(connection->flush());
    if (connection->queued_bytes() == 0) return {};
    CHORUS_TRY(const bool ready, connection->wait(milliseconds_left(deadline)));
    if (!ready) {
      return fail(ErrorCode::deadline_exceeded, "the peer did not take {} queued bytes within {} ms",
                  connection->queued_bytes(), timeout_ms);
    }
  }
}

Result<Frame> receive_within(Connection* connection, int timeout_ms) {
  const Nanoseconds deadline = monotonic_now() + Nanoseconds{timeout_ms} * 1'000'000;
  while (true) {
    CHORUS_TRY(std::optional<Frame> frame, connection->receive());
    if (frame.has_value()) return std::move(*frame);
    // A peer that left can take nothing, but what it said last is still to be read: receive() tells when that is done.
    if (connection->queued_bytes() > 0) static_cast<void>(connection->flush().ok());
    CHORUS_TRY(const bool ready, connection->wait(milliseconds_left(deadline)));
    if (!ready) {
      return fail(ErrorCode::deadline_exceeded, "no message from the peer within {} ms", timeout_ms);
    }
  }
}

}  // namespace chorus

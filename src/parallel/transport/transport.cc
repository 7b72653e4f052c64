#include "parallel/transport/transport.h"

#include <fmt/ranges.h>

#include <algorithm>

namespace chorus {

Result<void> Transport::exchange(std::span<const Outgoing> outgoing, std::span<const Incoming> incoming) {
  CHORUS_TRY_VOID(begin(outgoing, incoming));
  Nanoseconds deadline = 0;  // an exchange that never waits asks for no time
  while (true) {
    CHORUS_TRY(const Moved moved, move());
    if (moved == Moved::all) return {};
    if (moved == Moved::something) continue;
    const Nanoseconds now = monotonic_now();
    if (deadline == 0) deadline = now + Nanoseconds{exchange_timeout_ms_} * 1'000'000;
    if (now >= deadline) {
      return break_world(
          fail(ErrorCode::deadline_exceeded, "rank {} waited {} ms for {}", rank_, exchange_timeout_ms_, missing()));
    }
    CHORUS_TRY_VOID(rest(-1, deadline));
  }
}

Result<bool> Transport::wait_for(int peer, int timeout_ms) {
  const Nanoseconds deadline = monotonic_now() + Nanoseconds{timeout_ms} * 1'000'000;
  while (true) {
    CHORUS_TRY(const bool there, has_byte(peer));
    if (there) return true;
    if (monotonic_now() >= deadline) return false;
    CHORUS_TRY_VOID(rest(peer, deadline));
  }
}

std::string name_ranks(std::vector<int> ranks) {
  std::ranges::sort(ranks);
  ranks.erase(std::ranges::unique(ranks).begin(), ranks.end());
  return fmt::format("{} {}", ranks.size() == 1 ? "rank" : "ranks", fmt::join(ranks, ", "));
}

}  // namespace chorus

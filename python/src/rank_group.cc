#include "rank_group.h"

namespace chorus::python {
namespace {

constexpr int slice_ms = 20;
constexpr std::size_t message_bytes_max = std::size_t{1} << 30;
const std::string your_turn = "your turn";

}  // namespace

Result<void> RankGroup::wait_for(int peer, const std::function<bool()>& interrupted) {
  while (true) {
    CHORUS_TRY(const bool there, group_.wait_for(peer, slice_ms));
    if (there) return {};
    if (!interrupted()) continue;
    transport_->abort("interrupted");
    return fail(ErrorCode::cancelled, "interrupted");
  }
}

// A rank sends when it is asked to: what is long is never sent to one that is not there to take it, and so every wait
// of any length is one that can be interrupted.
Result<std::vector<std::string>> RankGroup::all_gather(const std::string& own,
                                                       const std::function<bool()>& interrupted) {
  std::vector<std::string> all(static_cast<std::size_t>(size()));
  std::string message;
  if (rank() != 0) {
    CHORUS_TRY_VOID(wait_for(0, interrupted));
    CHORUS_TRY_VOID(group_.receive_message(&message, 0, your_turn.size()));
    CHORUS_TRY_VOID(group_.send_message(own, 0));
    for (std::string& part : all) {
      CHORUS_TRY_VOID(wait_for(0, interrupted));
      CHORUS_TRY_VOID(group_.receive_message(&part, 0, message_bytes_max));
    }
    return all;
  }
  all[0] = own;
  for (int peer = 1; peer < size(); ++peer) {
    CHORUS_TRY_VOID(group_.send_message(your_turn, peer));
    CHORUS_TRY_VOID(wait_for(peer, interrupted));
    CHORUS_TRY_VOID(group_.receive_message(&all[static_cast<std::size_t>(peer)], peer, message_bytes_max));
  }
  for (int peer = 1; peer < size(); ++peer) {
    for (const std::string& part : all) CHORUS_TRY_VOID(group_.send_message(part, peer));
  }
  return all;
}

}  // namespace chorus::python

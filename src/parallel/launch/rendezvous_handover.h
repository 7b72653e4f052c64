// One process gives a descriptor to others of the same user and node, over an abstract Unix socket with a random name,
// which is published in a Store.
#pragma once

#include <span>

#include "base/clock.h"
#include "base/result.h"
#include "net/unique_fd.h"
#include "parallel/store/store.h"

namespace chorus {

// Rank `giver` publishes itself and gives fds[r] to rank r, once each, whoever comes first; its own and those that are
// -1 are not asked for. Returns when all have theirs. Processes of another user are turned away. Once a store: others
// need another prefix.
Result<void> hand_over_descriptors(Store& store, std::span<const int> fds, Nanoseconds deadline, int giver = 0);
// Tells the others that there will be no descriptor, and why.
void refuse_descriptor(Store& store, const std::string& reason, Nanoseconds deadline);
Result<UniqueFd> receive_descriptor(Store& store, int rank, Nanoseconds deadline, int giver = 0);

}  // namespace chorus

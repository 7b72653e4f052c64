// One process gives a descriptor to others of the same user and node, over an abstract Unix socket with a random name,
// which is published in a Store. Private to this room.
#pragma once

#include "base/clock.h"
#include "base/result.h"
#include "dist/store.h"
#include "net/unique_fd.h"

namespace chorus {

// Publishes itself and gives `fd` to the ranks 1 .. size - 1, once each; returns when all have it. Processes of another
// user are turned away.
Result<void> hand_over_descriptor(Store& store, int fd, int size, Nanoseconds deadline);
// Tells the others that there will be no descriptor, and why.
void refuse_descriptor(Store& store, const std::string& reason, Nanoseconds deadline);
Result<UniqueFd> receive_descriptor(Store& store, int rank, Nanoseconds deadline);

}  // namespace chorus

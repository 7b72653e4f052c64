#include "parallel/group.h"

namespace chorus {

// By dissemination: in round k a rank tells the one 2^k after it, so that after log2(n) rounds each has heard of all
// (Hensgen, Finkel and Manber, "Two algorithms for barrier synchronization", 1988).
Result<void> Group::barrier() {
  for (int distance = 1; distance < size(); distance *= 2) {
    const std::byte sign{1};
    std::byte seen{};
    const Transport::Outgoing outgoing{member((rank_ + distance) % size()), {&sign, 1}};
    const Transport::Incoming incoming{member((rank_ - distance % size() + size()) % size()), {&seen, 1}};
    CHORUS_TRY_VOID(transport_->exchange({&outgoing, 1}, {&incoming, 1}));
  }
  return {};
}

}  // namespace chorus

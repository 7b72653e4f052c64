// Where a request is being computed: a replica, and which of its lives.
#pragma once

#include <cstdint>
#include <limits>

#include "base/fields.h"

namespace chorus {

// Counts the incarnations of one replica, from 1. A frame of an older epoch is the voice of a dead process: it is
// dropped, so one that wakes from SIGSTOP, or whose last bytes arrive late, cannot speak twice.
using Epoch = std::uint32_t;

struct Placement {
  int rank = 0;  // data-parallel rank of the replica
  Epoch epoch = 0;
  bool operator==(const Placement&) const = default;
  static constexpr auto fields(auto& self, auto&& visit) { return visit(self.rank, self.epoch); }
};

// Data-parallel ranks from `begin` to before `end`; default: all.
struct RankRange {
  int begin = 0;
  int end = std::numeric_limits<int>::max();
  bool contains(int rank) const { return rank >= begin && rank < end; }
};

}  // namespace chorus

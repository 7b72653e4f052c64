// What both meanings of device code share (simt.h).
#pragma once

#include <cstddef>
#include <cstdint>

namespace simt {

using Bfloat16 = std::uint16_t;  // its bits, as in tensor/dtype.h

// Of one launch. Blocks run in any order, at once or one after another.
struct Shape {
  int x = 1, y = 1, z = 1;  // blocks
  int threads = 32;         // of a block: a multiple of 32
  int shared_bytes = 0;     // of a block
  // The kernel may begin before the one queued before it has ended; each of its threads waits in wait_for_previous()
  // before it touches what that one writes or reads.
  bool overlaps = false;
};

inline constexpr int warp_lanes = 32;

}  // namespace simt

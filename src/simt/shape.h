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
  // The kernel may begin before earlier kernels have ended, not only the last of them: that one may itself be waiting.
  // Each of its threads calls wait_for_previous(). Before it does, it writes nothing, and reads nothing that an earlier
  // kernel may write: only the arguments and what copies of the host have written, such as weights.
  bool overlaps = false;
};

inline constexpr int warp_lanes = 32;

// 16 bytes that are read and written at once.
struct alignas(16) Bytes16 {
  std::uint32_t words[4];
};

}  // namespace simt

// Where a contraction may be cut: design.md section 1, rule 2.
#pragma once

namespace chorus {

// The segments of a contraction over `units` (heads, intermediate columns): the largest power of two <= 8 that divides
// them.
constexpr int reduction_segments(int units) {
  int segments = 8;
  while (units % segments != 0) segments /= 2;
  return segments;
}

}  // namespace chorus

// The reduction tree of design.md section 1, rule 2, over the pieces of several ranks. Private to this room.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>

namespace chorus {

template <int Ranks>
inline float tree_sum_at(const float* const* pieces, std::size_t i) {
  if constexpr (Ranks == 1) {
    return pieces[0][i];
  } else {
    return tree_sum_at<Ranks / 2>(pieces, i) + tree_sum_at<Ranks / 2>(pieces + Ranks / 2, i);
  }
}

template <int Ranks>
void tree_sum_of(const float* const* pieces, std::size_t count, float* sum) {
  // `sum` overlaps a piece exactly or not at all, so no element depends on another one.
#pragma GCC ivdep
  for (std::size_t i = 0; i < count; ++i) sum[i] = tree_sum_at<Ranks>(pieces, i);
}

// sum[i] = tree over r of pieces[r][i], for i in [0, count). The tree is binary and balanced: ranks is a power of two,
// from two up. `sum` may be one of the pieces.
inline void tree_sum(const float* const* pieces, int ranks, std::size_t count, float* sum) {
  switch (ranks) {
    case 2:
      return tree_sum_of<2>(pieces, count, sum);
    case 4:
      return tree_sum_of<4>(pieces, count, sum);
    case 8:
      return tree_sum_of<8>(pieces, count, sum);
    default:
      break;
  }
  // The two halves of the tree, a block at a time.
  std::array<float, 512> left, right;
  std::array<const float*, 1024> moved;
  for (std::size_t first = 0; first < count; first += left.size()) {
    const std::size_t block = std::min(left.size(), count - first);
    for (int r = 0; r < ranks; ++r) moved[static_cast<std::size_t>(r)] = pieces[r] + first;
    tree_sum(moved.data(), ranks / 2, block, left.data());
    tree_sum(moved.data() + ranks / 2, ranks / 2, block, right.data());
    for (std::size_t i = 0; i < block; ++i) sum[first + i] = left[i] + right[i];
  }
}

}  // namespace chorus

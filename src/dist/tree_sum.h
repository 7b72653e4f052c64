// The reduction tree of design.md section 1, rule 2, over the pieces of several ranks. Private to this room.
#pragma once

#include <cstddef>

namespace chorus {

// sum[i] = tree over r of piece(r)[i], for i in [0, count). The tree is binary and balanced, so the ranks are a power of two.
// `sum` may be the piece of rank 0.
template <typename Piece>
void tree_sum(const Piece& piece, int first, int ranks, std::size_t count, float* sum);

template <typename Piece>
float tree_sum_at(const Piece& piece, int first, int ranks, std::size_t i) {
  if (ranks == 1) return piece(first)[i];
  return tree_sum_at(piece, first, ranks / 2, i) + tree_sum_at(piece, first + ranks / 2, ranks / 2, i);
}

// Two and four ranks are what a node has most often: written out, so that the compiler makes vectors of them.
template <typename Piece>
void tree_sum(const Piece& piece, int first, int ranks, std::size_t count, float* sum) {
  if (ranks == 2) {
    const float *a = piece(first), *b = piece(first + 1);
    for (std::size_t i = 0; i < count; ++i) sum[i] = a[i] + b[i];
  } else if (ranks == 4) {
    const float *a = piece(first), *b = piece(first + 1), *c = piece(first + 2), *d = piece(first + 3);
    for (std::size_t i = 0; i < count; ++i) sum[i] = (a[i] + b[i]) + (c[i] + d[i]);
  } else {
    for (std::size_t i = 0; i < count; ++i) sum[i] = tree_sum_at(piece, first, ranks, i);
  }
}

}  // namespace chorus

// What a layer needs to compute: the worker's threads, its scratch memory and the tensor-parallel group. Values handed down,
// nothing process-wide.
#pragma once

#include "dist/group.h"
#include "kernels/isa.h"
#include "kernels/linear.h"
#include "kernels/scratch.h"
#include "kernels/thread_pool.h"

namespace chorus {

struct LayerContext {
  ThreadPool& pool;
  Scratch& scratch;
  Isa isa;
  Group& tp;
};

// Where a rank stands in its tensor-parallel group; enough to declare parameters.
struct TensorParallel {
  int rank = 0;
  int size = 1;
};

// The segments of a contraction over `units` (heads, intermediate columns): the largest power of two <= 8 that divides them
// (design.md section 1, rule 2).
constexpr int reduction_segments(int units) {
  int segments = 8;
  while (units % segments != 0) segments /= 2;
  return segments;
}

}  // namespace chorus

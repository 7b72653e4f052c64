#include "kernels/linear.h"

#include <limits>

#include "base/check.h"
#include "kernels/linear_kernel.h"
#include "kernels/scratch.h"

namespace chorus {
namespace {

const LinearKernel& kernel_of(LinearLayout layout) {
  switch (layout) {
    case LinearLayout::rows:
      return linear_kernel_scalar();
    case LinearLayout::lanes8:
      return linear_kernel_avx2();
    case LinearLayout::lanes16:
      return linear_kernel_avx512();
    case LinearLayout::tiles:
      return linear_kernel_amx();
  }
  return linear_kernel_scalar();
}

// Threads stand in a grid over (blocks of x, panels of W); each computes a rectangle of y.
struct Grid {
  std::int64_t over_blocks = 1, over_panels = 1;
};

// The grid whose largest rectangle is smallest; among equals the one with the most threads over the panels, since that
// reads every weight once.
Grid choose_grid(int threads, std::int64_t blocks, std::int64_t panels) {
  Grid best;
  std::int64_t least = std::numeric_limits<std::int64_t>::max();
  for (std::int64_t over_panels = threads; over_panels >= 1; --over_panels) {
    if (threads % over_panels != 0) continue;
    const std::int64_t over_blocks = threads / over_panels;
    const std::int64_t work =
        (round_up(blocks, over_blocks) / over_blocks) * (round_up(panels, over_panels) / over_panels);
    if (work < least) {
      least = work;
      best = {over_blocks, over_panels};
    }
  }
  return best;
}

}  // namespace

void linear(ThreadPool& pool, Scratch& scratch, const PackedLinear& weight, const float* x, std::int64_t m,
            std::int64_t ldx, float* y, std::int64_t ldy, const LinearEpilogue& epilogue) {
  linear_with(kernel_of(linear_layout(weight.isa, weight.dtype)), pool, scratch, weight, x, m, ldx, y, ldy, epilogue);
}

void linear_with(const LinearKernel& kernel, ThreadPool& pool, Scratch& scratch, const PackedLinear& weight,
                 const float* x, std::int64_t m, std::int64_t ldx, float* y, std::int64_t ldy,
                 const LinearEpilogue& epilogue) {
  CHECK(m >= 0 && ldx >= weight.shape.columns && ldy >= weight.shape.rows, "m {}, ldx {}, ldy {}, W {} x {}", m, ldx,
        ldy, weight.shape.rows, weight.shape.columns);
  CHECK(reinterpret_cast<std::uintptr_t>(weight.data) % 64 == 0, "packed weights are not 64-byte aligned");
  if (m == 0 || weight.shape.rows == 0) return;
  LinearCall call{weight, epilogue, x, m, ldx, y, ldy, round_up(m, kernel.block_rows) / kernel.block_rows, nullptr};

  Scratch::Scope scope(scratch);
  if (const std::size_t bytes = kernel.prepared_bytes(weight.shape, m); bytes != 0) {
    call.prepared = scratch.take(bytes);
    if (call.blocks == 1) {
      kernel.prepare(call, 0, 1);
    } else {
      pool.for_range(call.blocks, [&](std::int64_t begin, std::int64_t end) { kernel.prepare(call, begin, end); });
    }
  }
  const std::int64_t panels = panel_count(linear_layout(weight.isa, weight.dtype), weight.shape);
  const Grid grid = choose_grid(pool.size(), call.blocks, panels);
  pool.run([&](int thread, int) {
    const std::int64_t i = thread / grid.over_panels, j = thread % grid.over_panels;
    const std::int64_t block_begin = call.blocks * i / grid.over_blocks,
                       block_end = call.blocks * (i + 1) / grid.over_blocks;
    const std::int64_t panel_begin = panels * j / grid.over_panels, panel_end = panels * (j + 1) / grid.over_panels;
    if (block_begin < block_end && panel_begin < panel_end) {
      kernel.compute(call, block_begin, block_end, panel_begin, panel_end);
    }
  });
}

}  // namespace chorus

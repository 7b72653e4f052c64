#include "kernels/linear.h"

#include <limits>

#include "base/check.h"
#include "kernels/elementwise.h"
#include "kernels/elementwise_rows.h"
#include "kernels/linear_kernel.h"
#include "tensor/scratch.h"

namespace chorus {
namespace {

// Threads stand in a grid over (blocks of x, panels of W); each computes a rectangle of y.
struct Grid {
  std::int64_t over_blocks = 1, over_panels = 1;

  LinearRectangle rectangle(int thread, std::int64_t blocks, std::int64_t panels) const {
    const std::int64_t i = thread / over_panels, j = thread % over_panels;
    return {blocks * i / over_blocks, blocks * (i + 1) / over_blocks, panels * j / over_panels,
            panels * (j + 1) / over_panels};
  }
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

LinearCall make_call(const LinearKernel& kernel, const PackedLinear& weight, const LinearInput& x) {
  CHECK(x.m >= 0 && (x.prepared != nullptr || x.m == 0 || x.stride >= weight.shape.columns),
        "m {}, stride {}, W {} x {}", x.m, x.stride, weight.shape.rows, weight.shape.columns);
  CHECK(reinterpret_cast<std::uintptr_t>(weight.data) % 64 == 0, "packed weights are not 64-byte aligned");
  LinearCall call;
  call.weight = weight;
  call.x = x.rows;
  call.m = x.m;
  call.ldx = x.stride;
  call.block_unit = kernel.block_unit;
  call.blocks = round_up(x.m, kernel.block_rows) / kernel.block_rows;
  return call;
}

// x as the kernel reads it; in memory of the caller's scope.
const std::byte* prepare(const LinearKernel& kernel, ThreadPool& pool, Scratch& scratch, const LinearInput& x,
                         LinearCall call) {
  if (x.prepared != nullptr) return x.prepared;
  const std::size_t bytes = kernel.prepared_bytes(call.weight.shape, call.m);
  if (bytes == 0) return nullptr;
  std::byte* out = scratch.take(bytes);
  call.preparing = out;
  if (call.blocks == 1) {
    kernel.prepare(call, 0, 1);
  } else {
    pool.for_range(call.blocks, [&](std::int64_t begin, std::int64_t end) { kernel.prepare(call, begin, end); });
  }
  return out;
}

// compute(rectangle, workspace) on every thread that has work.
template <typename F>
void for_each_rectangle(ThreadPool& pool, Scratch& scratch, std::int64_t blocks, std::int64_t panels,
                        std::size_t workspace_bytes, F compute) {
  const Grid grid = choose_grid(pool.size(), blocks, panels);
  workspace_bytes = round_up(workspace_bytes, 64);
  std::byte* workspaces = scratch.take(workspace_bytes * static_cast<std::size_t>(pool.size()));
  pool.run([&](int thread, int) {
    const LinearRectangle own = grid.rectangle(thread, blocks, panels);
    if (!own.empty()) compute(own, workspaces + static_cast<std::size_t>(thread) * workspace_bytes);
  });
}

// Whether the kernel can make the next product's x itself.
bool gates(const LinearKernel& kernel, const PackedLinear& gate_up, const PackedLinear& next) {
  return kernel.compute_gated != nullptr && gate_up.format == next.format &&
         gate_up.shape.rows / 2 % panel_rows(LinearLayout::tiles) == 0 &&
         segment_columns(next.shape) % tile_columns == 0;
}

}  // namespace

namespace {

// The fastest of those that the instruction set's name allows: their bits are the same.
const LinearKernel& group_kernel(Isa isa) {
  if (isa == Isa::scalar) return group_kernel_scalar();
  if (isa == Isa::amx_bf16 && has_amx_int8()) return group_kernel_amx();
  return isa != Isa::avx2_f32 && has_vnni() ? group_kernel_vnni() : group_kernel_avx2();
}

}  // namespace

const LinearKernel& linear_kernel(Isa isa, LinearFormat format) {
  switch (linear_layout(isa, format)) {
    case LinearLayout::rows:
      return linear_kernel_scalar();
    case LinearLayout::lanes8:
      return linear_kernel_avx2();
    case LinearLayout::lanes16:
      return linear_kernel_avx512();
    case LinearLayout::tiles:
      return linear_kernel_amx();
    case LinearLayout::groups:
      return group_kernel(isa);
    case LinearLayout::matrix:
      break;  // linear_cuda.h
  }
  return linear_kernel_scalar();
}

void linear(ThreadPool& pool, Scratch& scratch, const PackedLinear& weight, const LinearInput& x, float* y,
            std::int64_t ldy, const LinearEpilogue& epilogue) {
  linear_with(linear_kernel(weight.isa, weight.format), pool, scratch, weight, x, y, ldy, epilogue);
}

void linear_with(const LinearKernel& kernel, ThreadPool& pool, Scratch& scratch, const PackedLinear& weight,
                 const LinearInput& x, float* y, std::int64_t ldy, const LinearEpilogue& epilogue) {
  CHECK(ldy >= weight.shape.rows, "ldy {}, W {} x {}", ldy, weight.shape.rows, weight.shape.columns);
  LinearCall call = make_call(kernel, weight, x);
  if (call.m == 0 || weight.shape.rows == 0) return;
  call.epilogue = epilogue;
  call.y = y;
  call.ldy = ldy;
  const Scratch::Scope scope(scratch);
  call.prepared = prepare(kernel, pool, scratch, x, call);
  for_each_rectangle(pool, scratch, call.blocks, panel_count(linear_layout(weight.isa, weight.format), weight.shape),
                     kernel.workspace_bytes(weight.shape, call.m),
                     [&](const LinearRectangle& own, std::byte* workspace) { kernel.compute(call, own, workspace); });
}

LinearInput gated_input(ThreadPool& pool, Scratch& scratch, const PackedLinear& gate_up, const float* bias,
                        const LinearInput& x, const PackedLinear& next, Activation activation) {
  return gated_input_with(linear_kernel(gate_up.isa, gate_up.format), gate_up.isa, pool, scratch, gate_up, bias, x,
                          next, activation);
}

LinearInput gated_input_with(const LinearKernel& kernel, Isa elementwise, ThreadPool& pool, Scratch& scratch,
                             const PackedLinear& gate_up, const float* bias, const LinearInput& x,
                             const PackedLinear& next, Activation activation) {
  const std::int64_t width = gate_up.shape.rows / 2;
  CHECK(gate_up.shape.rows == 2 * next.shape.columns && gate_up.isa == next.isa, "gate and up {}, next columns {}",
        gate_up.shape.rows, next.shape.columns);
  if (!gates(kernel, gate_up, next)) {
    float* activated = scratch.take_array<float>(x.m * width);
    const Scratch::Scope scope(scratch);
    float* sums = scratch.take_array<float>(x.m * 2 * width);
    linear_with(kernel, pool, scratch, gate_up, x, sums, 2 * width, {bias, false});
    activate_mul(pool, elementwise, activation, sums, x.m, width, 2 * width, activated, width);
    return {activated, x.m, width};
  }
  LinearGatedCall call{make_call(kernel, gate_up, x), next.shape, elementwise_kernels(elementwise).gated(activation),
                       scratch.take(kernel.prepared_bytes(next.shape, x.m))};
  if (x.m == 0) return {nullptr, 0, 0};
  call.product.epilogue.bias = bias;
  const Scratch::Scope scope(scratch);
  call.product.prepared = prepare(kernel, pool, scratch, x, call.product);
  for_each_rectangle(
      pool, scratch, call.product.blocks, width / panel_rows(LinearLayout::tiles),
      kernel.gated_workspace_bytes(gate_up.shape, x.m),
      [&](const LinearRectangle& own, std::byte* workspace) { kernel.compute_gated(call, own, workspace); });
  return {nullptr, x.m, width, call.out};
}

}  // namespace chorus

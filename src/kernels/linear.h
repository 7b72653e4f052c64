// y = x W^T with W packed once for an instruction set and a format (linear_format.h), and the reduction tree of the
// promise (design.md section 1, rule 2).
//
// Numerics. Every output is a function of its row of x and its row of W alone:
//   1. the inner dimension `columns` is cut into `segments` equal parts (columns % segments == 0);
//   2. each part is summed in float32 in ascending column order (in the order that the instruction set's kernel
//   defines, the
//      same for every m, ldx, thread count and alignment);
//   3. the parts are combined by the balanced binary tree ((0+1)+(2+3))+((4+5)+(6+7)); `segments` is 1, 2, 4 or 8.
// A tensor-parallel rank holds a whole subtree: it packs its columns with segments / tp, and the group adds the partial
// sums in the same tree. Zero columns that packing adds for alignment contribute +0.
// Of integers in groups part 2 is other: linear_groups.h.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/elementwise.h"
#include "kernels/isa.h"
#include "kernels/thread_pool.h"
#include "tensor/linear_format.h"

namespace chorus {

struct LinearShape {
  std::int64_t rows = 0;     // outputs (N)
  std::int64_t columns = 0;  // inner dimension (K)
  int segments = 1;
  // Not 0: half of the rows are a gate, the others what it gates, of a product with a matrix of so many segments.
  int gated_segments = 0;
};

// A view of packed weights; the memory belongs to the weight arena and outlives the view. 64-byte aligned.
struct PackedLinear {
  LinearShape shape;
  LinearFormat format;
  Isa isa = Isa::scalar;
  const std::byte* data = nullptr;
};

std::size_t packed_linear_bytes(Isa isa, LinearFormat format, const LinearShape& shape);
// Rows and columns of a matrix as they are packed for a GPU, and where one row is: filled up with zeros.
LinearShape packed_shape(Isa isa, LinearFormat format, const LinearShape& shape);
std::int64_t packed_linear_row(Isa isa, LinearFormat format, const LinearShape& shape, std::int64_t row);

// Rows are packed in panels of this many; panels are independent, so threads may pack different panels of one matrix.
std::int64_t linear_panel_rows(Isa isa, LinearFormat format);

// A source row block, row-major, in the checkpoint's dtype; no alignment needed.
struct SourceRows {
  const std::byte* data = nullptr;
  DType dtype = DType::bfloat16;
  std::int64_t row_stride = 0;  // elements between rows
  // Not null, in place of the above: a row of groups, from a column on; segments are whole groups.
  const LinearGroups* groups = nullptr;
  std::int64_t row = 0, first_column = 0;
};
// Packs rows [panel * P, min((panel + 1) * P, rows)) of the matrix into `out` (the start of the whole packed matrix).
// `row_source(context, row)` gives the `columns` source elements of one row: a row of W may come from any tensor
// (merged q, k, v). Missing rows of the last panel are zero.
using RowSource = SourceRows (*)(const void* context, std::int64_t row);
void pack_linear_panel(Isa isa, LinearFormat format, const LinearShape& shape, std::int64_t panel, RowSource row_source,
                       const void* context, std::byte* out);

// What happens to the sum before it is stored, in this order.
struct LinearEpilogue {
  const float* bias = nullptr;  // [rows], added to the finished sum
  bool accumulate = false;      // y += sum instead of y = sum
};

// Scratch of one worker for all operations: grows to the largest need during warm-up, then stays. See scratch.h.
class Scratch;

// x of a product: m rows of float32 [columns], `stride` apart, or what gated_input() made for one packed matrix.
struct LinearInput {
  const float* rows = nullptr;
  std::int64_t m = 0, stride = 0;
  const std::byte* prepared = nullptr;  // not null: m rows as the kernel of that matrix reads them
};

// y: [m, rows] float32, row stride ldy. x and y do not overlap. m may be 0.
void linear(ThreadPool& pool, Scratch& scratch, const PackedLinear& weight, const LinearInput& x, float* y,
            std::int64_t ldy, const LinearEpilogue& epilogue = {});

// activation(gate) * up as x of the product with `next`, where [gate, up] = W x + bias: the bits of linear() and
// activate_mul() one after the other. Lies in memory of the scratch's scope around the call.
LinearInput gated_input(ThreadPool& pool, Scratch& scratch, const PackedLinear& gate_up, const float* bias,
                        const LinearInput& x, const PackedLinear& next, Activation activation = Activation::silu);

// Row `row` of W as float32 [columns]: the embedding of a model whose embedding is tied to its output matrix.
void unpack_linear_row(const PackedLinear& weight, std::int64_t row, float* out);

}  // namespace chorus

// The kernel of matrices in groups for vector registers, written once over a policy. Included only by
// linear_groups_avx2.cc and linear_groups_vnni.cc, whose `Vector` is in an anonymous namespace.
//
// Vector gives: what FloatVector of linear_vector.h has, rows_at_once, load_half(p) (binary16); Quantise; and for the
// sums over one group of `lanes` outputs, with 4 columns of each in a register: Weights unpack<kind>(line, upper)
// (upper: the high halves of bytes), X quad(codes) (the same 4 columns for all), Sum start<kind>(sum of x's codes),
// add<kind>(Sum, Weights, X), and Register finish<kind>(Sum, sum of x's codes).
#pragma once

#include "kernels/linear_groups.h"
#include "kernels/linear_vector.h"

namespace chorus {

template <typename Vector, LinearFormat::Kind kind, int rows>
class GroupTile {
  using Register = typename Vector::Register;
  static constexpr int vectors = static_cast<int>(group_panel_rows) / Vector::lanes;
  static constexpr int half_vectors = vectors / 2;
  using Tree = SegmentTree<Vector, rows, vectors>;
  static constexpr std::int64_t prefetch_bytes = 4096;

 public:
  // y of rows [row, row + rows) of the block for one panel.
  static void compute(const LinearCall& call, const GroupRows& x, std::int64_t first_row, std::int64_t row,
                      std::int64_t panel) {
    const LinearShape& shape = call.weight.shape;
    const std::int64_t groups = segment_groups(shape);
    const std::byte* record = call.weight.data + panel * group_panel_bytes(kind, shape);
    Register sum[rows][vectors];
    Tree tree;
    for (int segment = 0; segment < shape.segments; ++segment, record += groups * record_bytes(kind)) {
      multiply_segment(x, row, segment * groups, groups, record, sum);
      tree.add(segment, shape.segments, sum);
    }
    for (int i = 0; i < rows; ++i) {
      float* y = call.y + (first_row + row + i) * call.ldy;
      for (int j = 0; j < vectors; ++j) {
        const std::int64_t n = panel * group_panel_rows + j * Vector::lanes;
        if (n >= shape.rows) break;
        store_outputs<Vector>(call, n, y + n, sum[i][j]);
      }
    }
  }

 private:
  static void multiply_segment(const GroupRows& x, std::int64_t row, std::int64_t first, std::int64_t groups,
                               const std::byte* record, Register (&out)[rows][vectors]) {
    // A copy whose address nobody sees, so that it stays in registers.
    Register sum[rows][vectors];
    Tree::for_each([&](int i, int j) { sum[i][j] = Vector::zero(); });
    std::int64_t cell = first * x.rows + row;
    for (std::int64_t group = 0; group < groups; ++group, cell += x.rows, record += record_bytes(kind)) {
      for (std::int64_t line = 0; line < record_bytes(kind); line += line_bytes) {
        _mm_prefetch(reinterpret_cast<const char*>(record) + prefetch_bytes + line, _MM_HINT_T0);
      }
#pragma GCC unroll 4
      for (int j = 0; j < vectors; ++j) multiply_group(x, cell, record, j, sum);
    }
    Tree::for_each([&](int i, int j) { out[i][j] = sum[i][j]; });
  }

  // The group's share of vector j of the outputs.
  [[gnu::always_inline]] static void multiply_group(const GroupRows& x, std::int64_t cell, const std::byte* record,
                                                    int j, Register (&sum)[rows][vectors]) {
    const std::byte* lines =
        record + j / half_vectors * half_code_bytes(kind) + j % half_vectors * std::int64_t{Vector::lanes} * 4;
    const std::int8_t* codes = x.codes + cell * group_columns;
    typename Vector::Sum dots[rows];
#pragma GCC unroll 8
    for (int i = 0; i < rows; ++i) dots[i] = Vector::template start<kind>(x.sums[cell + i]);
#pragma GCC unroll 8
    for (int quad = 0; quad < 8; ++quad) {
      const bool upper = kind != LinearFormat::int8 && quad >= 4;
      const std::byte* line = lines + (upper ? quad - 4 : quad) * line_bytes;
      const auto weights = Vector::template unpack<kind>(line, upper);
#pragma GCC unroll 8
      for (int i = 0; i < rows; ++i) {
        Vector::template add<kind>(&dots[i], weights,
                                   Vector::quad(codes + std::int64_t{i} * group_columns + std::int64_t{quad} * 4));
      }
    }
    const std::byte* scales = record + scales_offset(kind) + std::int64_t{j} * Vector::lanes * 2;
    const Register scale = Vector::load_half(scales);
#pragma GCC unroll 8
    for (int i = 0; i < rows; ++i) {
      const Register factor = Vector::multiply(scale, Vector::broadcast(x.scales[cell + i]));
      sum[i][j] = Vector::fma(Vector::template finish<kind>(dots[i], x.sums[cell + i]), factor, sum[i][j]);
      if constexpr (has_minimum(kind)) {
        Register minimum = Vector::load_half(scales + line_bytes);
        if constexpr (kind == LinearFormat::int4_zero) minimum = Vector::multiply(scale, minimum);
        sum[i][j] = Vector::fma(minimum, Vector::broadcast(x.scaled_sums[cell + i]), sum[i][j]);
      }
    }
  }
};

template <typename Vector>
struct GroupProduct {
  static std::size_t workspace_bytes(const LinearShape&, std::int64_t) { return 0; }

  // Blocks whose x stays in the second-level cache and meets each panel in turn.
  static std::int64_t blocks_at_once(const LinearShape& shape) {
    constexpr std::int64_t x_bytes_max = 1 << 20;
    return std::max<std::int64_t>(1, x_bytes_max / std::max<std::int64_t>(1, group_block_bytes(shape)));
  }

  static void compute(const LinearCall& call, const LinearRectangle& all, std::byte*) {
    switch (call.weight.format.kind) {
      case LinearFormat::int8:
        return compute_all<LinearFormat::int8>(call, all);
      case LinearFormat::int4:
        return compute_all<LinearFormat::int4>(call, all);
      case LinearFormat::int4_zero:
        return compute_all<LinearFormat::int4_zero>(call, all);
      default:
        return compute_all<LinearFormat::int4_minimum>(call, all);
    }
  }

 private:
  template <LinearFormat::Kind kind>
  static void compute_all(const LinearCall& call, const LinearRectangle& all) {
    const std::int64_t step = blocks_at_once(call.weight.shape);
    for (std::int64_t begin = all.block_begin; begin < all.block_end; begin += step) {
      const std::int64_t end = std::min(begin + step, all.block_end);
      for (std::int64_t panel = all.panel_begin; panel < all.panel_end; ++panel) {
        for (std::int64_t block = begin; block < end; ++block) compute_block<kind>(call, block, panel);
      }
    }
  }

  template <LinearFormat::Kind kind>
  static void compute_block(const LinearCall& call, std::int64_t block, std::int64_t panel) {
    const GroupRows x = group_rows(call, block);
    const std::int64_t count = block_rows_of(call, block);
    for (std::int64_t row = 0; row < count; row += Vector::rows_at_once) {
      compute_rows<kind, Vector::rows_at_once>(call, x, block, row,
                                               std::min<std::int64_t>(Vector::rows_at_once, count - row), panel);
    }
  }

  template <LinearFormat::Kind kind, int rows>
  static void compute_rows(const LinearCall& call, const GroupRows& x, std::int64_t block, std::int64_t row,
                           std::int64_t count, std::int64_t panel) {
    if (count == rows) {
      GroupTile<Vector, kind, rows>::compute(call, x, call.block_begin(block), row, panel);
    } else if constexpr (rows > 1) {
      compute_rows<kind, rows - 1>(call, x, block, row, count, panel);
    }
  }
};

template <typename Vector>
constexpr LinearKernel linear_kernel_groups = {group_block_rows,
                                               tile_rows,
                                               group_prepared_bytes,
                                               GroupProduct<Vector>::workspace_bytes,
                                               prepare_group_rows<typename Vector::Quantise>,
                                               GroupProduct<Vector>::compute};

}  // namespace chorus

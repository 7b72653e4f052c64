// Matrices in groups by AMX-INT8. A group of 32 columns is half a tile's depth: 16 rows of x by 32 bytes, 8 lines of W
// by 16 outputs, which is how the codes lie (linear_groups.h). The tiles give a group's integers; vector instructions
// scale and sum the group before meanwhile, as the other kernels do.
#include "kernels/vnni.h"

#include "kernels/linear_groups.h"

namespace chorus {
namespace {

// LDTILECFG's operand (Intel SDM vol. 2A): palette 1; tiles 0 and 1 are sums, 2 and 3 x, 4 and 5 W.
struct alignas(64) GroupTileConfiguration {
  std::uint8_t palette = 1, start_row = 0;
  std::uint8_t reserved[14] = {};
  std::uint16_t row_bytes[16] = {64, 64, 32, 32, 64, 64};
  std::uint8_t rows[16] = {16, 16, 16, 16, 8, 8};
};
static_assert(sizeof(GroupTileConfiguration) == 64);
const GroupTileConfiguration configuration;

template <int tile>
void load_tile(const void* data, std::int64_t stride) {
  __asm__ volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(data), "r"(stride), "i"(tile) : "memory");
}

using Sums = std::int32_t[tile_rows][group_half_rows];

// sums = x W of one group; two may be under way.
template <int which>
[[gnu::always_inline]] inline void multiply_group(const std::int8_t* x, const std::byte* w, Sums& sums) {
  __asm__ volatile("tilezero %%tmm%c0" ::"i"(which));
  load_tile<2 + which>(x, group_columns);
  load_tile<4 + which>(w, line_bytes);
  __asm__ volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(which), "i"(2 + which), "i"(4 + which));
  __asm__ volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(&sums[0][0]), "r"(line_bytes), "i"(which) : "memory");
}

// Half a panel of W, ready for the tiles: codes as signed bytes, scales and minima as floats.
struct HalfPanel {
  const std::byte* codes = nullptr;
  std::int64_t stride = 0;  // of a group's codes
  const float* scales = nullptr;
  const float* minima = nullptr;
};

constexpr std::int64_t signed_code_bytes = half_code_bytes(LinearFormat::int8);

std::size_t workspace_bytes(const LinearShape& shape, std::int64_t) {
  return static_cast<std::size_t>(groups_of(shape) * (signed_code_bytes + 2 * line_bytes));
}

template <LinearFormat::Kind kind>
void unpack_codes(const std::byte* lines, std::byte* out) {
  const __m512i offset = _mm512_set1_epi8(static_cast<char>(code_offset(kind)));
  for (int line = 0; line < 8; ++line) {
    const __m512i codes = Vnni::unpack<kind>(lines + line % 4 * line_bytes, line >= 4);
    _mm512_storeu_si512(out + line * line_bytes, _mm512_sub_epi8(codes, offset));
  }
}

template <LinearFormat::Kind kind>
HalfPanel ready_half(const LinearCall& call, std::int64_t panel, std::int64_t half, std::byte* workspace) {
  const LinearShape& shape = call.weight.shape;
  const std::int64_t groups = groups_of(shape);
  const std::byte* record = call.weight.data + panel * group_panel_bytes(kind, shape);
  auto* scales = reinterpret_cast<float*>(workspace + groups * signed_code_bytes);
  float* minima = scales + groups * group_half_rows;
  HalfPanel ready{workspace, signed_code_bytes, scales, minima};
  if constexpr (kind == LinearFormat::int8)
    ready = {record + half * signed_code_bytes, record_bytes(kind), scales, minima};
  for (std::int64_t group = 0; group < groups; ++group, record += record_bytes(kind)) {
    const std::byte* from = record + scales_offset(kind) + half * group_half_rows * 2;
    const __m512 scale = Vnni::load_half(from);
    Vnni::store(scales + group * group_half_rows, scale);
    if constexpr (kind != LinearFormat::int8) {
      unpack_codes<kind>(record + half * half_code_bytes(kind), workspace + group * signed_code_bytes);
    }
    if constexpr (has_minimum(kind)) {
      const __m512 minimum = Vnni::load_half(from + line_bytes);
      Vnni::store(minima + group * group_half_rows,
                  kind == LinearFormat::int4_zero ? _mm512_mul_ps(scale, minimum) : minimum);
    }
  }
  return ready;
}

// Rows [row, row + 16) of a block by 16 outputs.
template <LinearFormat::Kind kind>
class HalfTile {
 public:
  HalfTile(const GroupRows& x, std::int64_t row, const HalfPanel& w) : x_(x), row_(row), w_(w) {}

  // Groups [first, first + count): a segment.
  void multiply(std::int64_t first, std::int64_t count, __m512 (&out)[tile_rows][1]) {
    __m512 sum[tile_rows];
#pragma GCC unroll 16
    for (int i = 0; i < tile_rows; ++i) sum[i] = _mm512_setzero_ps();
    const std::int64_t end = first + count;
    begin<0>(first);
    std::int64_t group = first;
    for (; group + 2 < end; group += 2) {
      begin<1>(group + 1);
      add(sums_[0], group, sum);
      begin<0>(group + 2);
      add(sums_[1], group + 1, sum);
    }
    if (group + 1 < end) begin<1>(group + 1);
    add(sums_[0], group, sum);
    if (group + 1 < end) add(sums_[1], group + 1, sum);
#pragma GCC unroll 16
    for (int i = 0; i < tile_rows; ++i) out[i][0] = sum[i];
  }

 private:
  template <int which>
  [[gnu::always_inline]] void begin(std::int64_t group) {
    multiply_group<which>(x_.codes + (group * x_.rows + row_) * group_columns, w_.codes + group * w_.stride,
                          sums_[which]);
  }
  [[gnu::always_inline]] void add(const Sums& sums, std::int64_t group, __m512 (&sum)[tile_rows]) {
    const std::int64_t cell = group * x_.rows + row_;
    const __m512 scale = Vnni::load(w_.scales + group * group_half_rows);
#pragma GCC unroll 16
    for (int i = 0; i < tile_rows; ++i) {
      const __m512 factor = _mm512_mul_ps(scale, _mm512_set1_ps(x_.scales[cell + i]));
      sum[i] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_load_si512(sums[i])), factor, sum[i]);
    }
    if constexpr (has_minimum(kind)) {
      const __m512 minimum = Vnni::load(w_.minima + group * group_half_rows);
#pragma GCC unroll 16
      for (int i = 0; i < tile_rows; ++i) {
        sum[i] = _mm512_fmadd_ps(minimum, _mm512_set1_ps(x_.scaled_sums[cell + i]), sum[i]);
      }
    }
  }

  const GroupRows& x_;
  std::int64_t row_;
  const HalfPanel& w_;
  alignas(64) Sums sums_[2];
};

void store_rows(const LinearCall& call, std::int64_t first_row, std::int64_t count, std::int64_t n,
                const __m512 (&sum)[tile_rows][1]) {
  const std::int64_t width = std::min(group_half_rows, call.weight.shape.rows - n);
  const auto mask = static_cast<__mmask16>((1U << width) - 1U);
  const __m512 bias =
      call.epilogue.bias != nullptr ? _mm512_maskz_loadu_ps(mask, call.epilogue.bias + n) : _mm512_setzero_ps();
  for (std::int64_t i = 0; i < count; ++i) {
    float* y = call.y + (first_row + i) * call.ldy + n;
    __m512 value = call.epilogue.bias != nullptr ? _mm512_add_ps(sum[i][0], bias) : sum[i][0];
    if (call.epilogue.accumulate) value = _mm512_add_ps(_mm512_maskz_loadu_ps(mask, y), value);
    _mm512_mask_storeu_ps(y, mask, value);
  }
}

// All segments of 16 rows by 16 outputs.
template <LinearFormat::Kind kind>
void multiply_tile(const LinearCall& call, std::int64_t block, std::int64_t row, std::int64_t n, const HalfPanel& w) {
  const std::int64_t groups = segment_groups(call.weight.shape);
  const int segments = call.weight.shape.segments;
  const GroupRows x = group_rows(call, block);
  HalfTile<kind> tile(x, row, w);
  __m512 sum[tile_rows][1];
  SegmentTree<Vnni, tile_rows, 1> tree;
  for (int segment = 0; segment < segments; ++segment) {
    tile.multiply(segment * groups, groups, sum);
    tree.add(segment, segments, sum);
  }
  store_rows(call, call.block_begin(block) + row, std::min(tile_rows, block_rows_of(call, block) - row), n, sum);
}

template <LinearFormat::Kind kind>
void compute_panel(const LinearCall& call, std::int64_t begin, std::int64_t end, std::int64_t panel,
                   std::byte* workspace) {
  for (std::int64_t half = 0; half < 2; ++half) {
    const std::int64_t n = panel * group_panel_rows + half * group_half_rows;
    if (n >= call.weight.shape.rows) return;
    const HalfPanel ready = ready_half<kind>(call, panel, half, workspace);
    for (std::int64_t block = begin; block < end; ++block) {
      for (std::int64_t row = 0; row < block_rows_of(call, block); row += tile_rows) {
        multiply_tile<kind>(call, block, row, n, ready);
      }
    }
  }
}

template <LinearFormat::Kind kind>
void compute_all(const LinearCall& call, const LinearRectangle& all, std::byte* workspace) {
  // Blocks whose x stays in the second-level cache and meets each panel in turn.
  constexpr std::int64_t x_bytes_max = 1 << 20;
  const std::int64_t step = std::max<std::int64_t>(4, x_bytes_max / group_block_bytes(call.weight.shape));
  __asm__ volatile("ldtilecfg %0" ::"m"(configuration));
  for (std::int64_t begin = all.block_begin; begin < all.block_end; begin += step) {
    const std::int64_t end = std::min(begin + step, all.block_end);
    for (std::int64_t panel = all.panel_begin; panel < all.panel_end; ++panel) {
      compute_panel<kind>(call, begin, end, panel, workspace);
    }
  }
  __asm__ volatile("tilerelease");
}

void compute(const LinearCall& call, const LinearRectangle& all, std::byte* workspace) {
  if (call.m < group_tile_rows_min) return group_kernel_vnni().compute(call, all, workspace);
  switch (call.weight.format.kind) {
    case LinearFormat::int8:
      return compute_all<LinearFormat::int8>(call, all, workspace);
    case LinearFormat::int4:
      return compute_all<LinearFormat::int4>(call, all, workspace);
    case LinearFormat::int4_zero:
      return compute_all<LinearFormat::int4_zero>(call, all, workspace);
    default:
      return compute_all<LinearFormat::int4_minimum>(call, all, workspace);
  }
}

constexpr LinearKernel kernel = {
    group_block_rows, tile_rows, group_prepared_bytes, workspace_bytes, prepare_group_rows<Vnni::Quantise>, compute};

}  // namespace

const LinearKernel& group_kernel_amx() {
  return kernel;
}

}  // namespace chorus

// Device code of linear_cuda.h, for nvcc and for the emulation: how a warp stores many outputs. They pass through
// shared memory for two reasons: a store then writes whole sectors of 32 bytes of a row, and the arithmetic of an
// output is in one short loop. Unrolled over a thread's fragments, that arithmetic did not fit into the instruction
// caches. Private to linear_cuda* and linear_wgmma*.
#pragma once

#include "kernels/activation_cuda_impl.h"
#include "kernels/linear_cuda.h"
#include "simt/simt.h"

namespace chorus::cuda::inline SIMT_MEANING {

using simt::Bfloat16;
using simt::Floats;
using simt::Shared;

// 16 x patch_columns sums of one warp in shared memory.
template <int patch_columns>
struct OutputPatch {
  static constexpr int rows = 16, columns = patch_columns, floats = rows * columns, bytes = floats * 4;
  static constexpr int lanes_of_row = columns / 4, rows_at_once = simt::warp_lanes / lanes_of_row;
  static constexpr int rounds = rows / rows_at_once;
  static_assert(columns % 32 == 0);
  Shared<Floats<2>> pairs;
  Shared<Floats<4>> quads;

  SIMT_DEVICE explicit OutputPatch(int byte)
      : pairs(simt::shared<Floats<2>>(byte, floats / 2)), quads(simt::shared<Floats<4>>(byte, floats / 4)) {}
  // Eights of columns are permuted so that those of four rows lie in different banks.
  SIMT_DEVICE static int at(int row, int column) {
    return row * columns + (((column >> 3) ^ (row & 3)) << 3) + (column & 7);
  }
  SIMT_DEVICE Floats<4> quad(int row, int column) const { return quads[at(row, column) >> 2]; }
  // The lane's part of fragment `index`, columns 8 * index and on.
  SIMT_DEVICE void put(int index, const float* sums) const {
    const int row = simt::lane() / 4, column = 8 * index + simt::lane() % 4 * 2;
    pairs[at(row, column) >> 1] = {sums[0], sums[1]};
    pairs[at(row + 8, column) >> 1] = {sums[2], sums[3]};
  }
};

// What a lane stores of a patch whose first output is (row, column): four outputs of every rows_at_once-th row. Patch:
// an OutputPatch.
template <typename Patch>
struct PatchLane {
  const CudaLinear& call;
  const Patch& patch;
  int row_in_patch, column_in_patch;
  int row, column;
  Floats<4> bias;

  SIMT_DEVICE PatchLane(const CudaLinear& product, const Patch& from, int first_row, int first_column)
      : call(product),
        patch(from),
        row_in_patch(simt::lane() / Patch::lanes_of_row),
        column_in_patch(simt::lane() % Patch::lanes_of_row * 4),
        row(first_row + row_in_patch),
        column(first_column + column_in_patch),
        bias{} {
    if (call.bias == nullptr || column >= call.rows) return;
    SIMT_UNROLL
    for (int i = 0; i < 4; ++i) bias.at[i] = call.bias[column + i];
  }
  SIMT_DEVICE bool has(int round) const { return row + round * Patch::rows_at_once < call.m; }
  SIMT_DEVICE Floats<4> sums(int round) const {
    Floats<4> sums = patch.quad(row_in_patch + round * Patch::rows_at_once, column_in_patch);
    if (call.bias == nullptr) return sums;
    SIMT_UNROLL
    for (int i = 0; i < 4; ++i) sums.at[i] += bias.at[i];
    return sums;
  }
  // Where the outputs of a round are, the first of which is number `at` of its row.
  template <typename T>
  SIMT_DEVICE T* y(int round, int at) const {
    return static_cast<T*>(call.y) + (row + round * Patch::rows_at_once) * call.ldy + at;
  }
};

template <bool accumulate, typename Patch>
SIMT_DEVICE void store_floats(const PatchLane<Patch>& lane) {
  constexpr int rounds = Patch::rounds;
  Floats<4> before[rounds] = {};
  SIMT_UNROLL
  for (int round = 0; accumulate && round < rounds; ++round) {  // all on their way at once
    if (lane.has(round))
      before[round] = *reinterpret_cast<const Floats<4>*>(lane.template y<float>(round, lane.column));
  }
  SIMT_UNROLL
  for (int round = 0; round < rounds; ++round) {
    if (!lane.has(round)) continue;
    Floats<4> sums = lane.sums(round);
    SIMT_UNROLL
    for (int i = 0; accumulate && i < 4; ++i) sums.at[i] = before[round].at[i] + sums.at[i];
    *reinterpret_cast<Floats<4>*>(lane.template y<float>(round, lane.column)) = sums;
  }
}

template <typename Patch>
SIMT_DEVICE void store_rounded(const PatchLane<Patch>& lane) {
  struct alignas(8) Quad {
    std::uint32_t low, high;
  };
  SIMT_UNROLL
  for (int round = 0; round < Patch::rounds; ++round) {
    if (!lane.has(round)) continue;
    const Floats<4> sums = lane.sums(round);
    *reinterpret_cast<Quad*>(lane.template y<Bfloat16>(round, lane.column)) = {
        simt::pack_bfloat16(sums.at[0], sums.at[1]), simt::pack_bfloat16(sums.at[2], sums.at[3])};
  }
}

// Two rounds at a time: four chains of arithmetic side by side.
template <bool gelu, typename Patch>
SIMT_DEVICE void store_gated(const PatchLane<Patch>& lane) {
  SIMT_ROLLED
  for (int round = 0; round < Patch::rounds; round += 2) {
    if (!lane.has(round)) return;
    const Floats<4> a = lane.sums(round), b = lane.sums(round + 1);
    float gates[4] = {a.at[0], a.at[2], b.at[0], b.at[2]};
    activate<gelu>(gates);
    *reinterpret_cast<std::uint32_t*>(lane.template y<Bfloat16>(round, lane.column / 2)) =
        simt::pack_bfloat16(gates[0] * a.at[1], gates[1] * a.at[3]);
    if (!lane.has(round + 1)) return;
    *reinterpret_cast<std::uint32_t*>(lane.template y<Bfloat16>(round + 1, lane.column / 2)) =
        simt::pack_bfloat16(gates[2] * b.at[1], gates[3] * b.at[3]);
  }
}

template <typename Patch>
SIMT_DEVICE void store_patch(const CudaLinear& call, const Patch& patch, int row, int column) {
  const PatchLane<Patch> lane(call, patch, row, column);
  if (lane.column >= call.rows) return;
  switch (call.output) {
    case CudaLinearOutput::store:
      return store_floats<false>(lane);
    case CudaLinearOutput::accumulate:
      return store_floats<true>(lane);
    case CudaLinearOutput::round:
      return store_rounded(lane);
    case CudaLinearOutput::gate:
      return store_gated<false>(lane);
    case CudaLinearOutput::gelu_gate:
      return store_gated<true>(lane);
  }
}

// Stores a warp's sums: `passes` times 16 x columns outputs, the first at (row, column), each (row_step, column_step)
// after the one before. All go through `patch`, which is this warp's own.
template <int passes, int columns>
SIMT_DEVICE void store_sums(const CudaLinear& call, const OutputPatch<columns>& patch, int row, int column,
                            int row_step, int column_step, const float (&sums)[passes * columns / 8][4]) {
  SIMT_ROLLED
  for (int pass = 0; pass < passes; ++pass) {
    simt::sync_warp();  // the patch before is read
    SIMT_UNROLL
    for (int i = 0; i < passes; ++i) {  // an index that varies would move the sums to local memory
      if (i != pass) continue;
      SIMT_UNROLL
      for (int f = 0; f < columns / 8; ++f) patch.put(f, sums[i * (columns / 8) + f]);
    }
    simt::sync_warp();
    store_patch(call, patch, row + pass * row_step, column + pass * column_step);
  }
}

}  // namespace chorus::cuda::inline SIMT_MEANING

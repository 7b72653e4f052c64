// Device code written once: kernels that include this header compile with nvcc, which makes PTX of it (simt_cuda.h),
// and with any other compiler, which makes an emulation of it (emulation.h, with its rules and what it finds). So every
// kernel is under test where there is no GPU (docs/decisions/018-simt.md).
//
// A kernel is a `SIMT_KERNEL name(arguments)`, or SIMT_KERNEL_OF(threads, blocks) where the registers of a thread must
// allow so many threads a block and blocks a processor; arguments are plain values. Threads of a block are numbered in
// one dimension; 32 are a warp, and a block has whole warps only. What both meanings have:
//
//   thread, threads, lane, warp, block_x, block_y, block_z: where this thread stands.
//   Shared<T>, shared<T>(byte, count): a part of the block's shared memory, as the launch sized it.
//   sync_block, sync_warp: barriers; every thread of the block or warp comes to them.
//   shuffle_xor, shuffle: another lane's value. any_of_warp: whether a condition holds in any lane.
//   load_matrix_x4, load_matrix_transposed_x4: ldmatrix, four 8 x 8 matrices of 16-bit elements.
//   mma_bf16: mma.sync m16n8k16, bfloat16 in, float32 sums.
//   let_next_begin, wait_for_previous: programmatic dependent launch; Shape::overlaps has the rule. The next kernel may
//   begin once all blocks of this one have called let_next_begin. wait_for_previous returns when all earlier kernels
//   have ended. in_order calls both, for a kernel that does nothing before.
//   Floats<count>, Bytes16: read and written at once. store16: Bytes16 into shared memory.
//   copy_async16, commit_copies, wait_copies<n>: cp.async into shared memory, in groups.
//   to_float, to_bfloat16, pack_bfloat16, multiply_add, exponential, magnitude, bits_of, float_of.
//   larger: one instruction; of a number and a NaN the number, of zeros either. zero_below(limit, x, value): value, or
//   0 where x < limit, without a jump.
//   quotient(a, b): a / b, rounded as IEEE does, for |a| from 2^-64 to 2^64 and b from 1 to 2^96; no branch.
//   SIMT_UNROLL, SIMT_ROLLED before a loop: unrolled wholly, or not at all.
//
// Device code stands in `namespace chorus::cuda::inline SIMT_MEANING`: a program may link both meanings of it.
//
// Arithmetic is IEEE float32 without contraction (nvcc: -fmad=false); a multiply and an add are fused where
// multiply_add() says so. So all but the sums inside mma_bf16 have the same bits on every GPU and in the emulation.
#pragma once

#if defined(__CUDACC__)
#include "simt/simt_cuda.h"
#else
#include "simt/emulation.h"
#endif

namespace simt {

SIMT_DEVICE int lane() {
  return thread() % warp_lanes;
}
SIMT_DEVICE int warp() {
  return thread() / warp_lanes;
}
SIMT_DEVICE void in_order() {
  let_next_begin();
  wait_for_previous();
}
// `count` consecutive numbers, read and written at once.
template <int count>
struct alignas(4 * count) Floats {
  float at[count];
};

SIMT_DEVICE float to_float(Bfloat16 value) {
  return float_of(static_cast<std::uint32_t>(value) << 16);
}
SIMT_DEVICE Bfloat16 to_bfloat16(float value) {
  return static_cast<Bfloat16>(pack_bfloat16(value, 0.0F) & 0xffffU);
}

// e^r for |r| <= ln(2) / 2: the polynomial of Cephes' expf (Moshier).
SIMT_DEVICE float exponential_series(float r) {
  float y = multiply_add(1.9875691500e-4F, r, 1.3981999507e-3F);
  y = multiply_add(y, r, 8.3334519073e-3F);
  y = multiply_add(y, r, 4.1665795894e-2F);
  y = multiply_add(y, r, 1.6666665459e-1F);
  y = multiply_add(y, r, 5.0000001201e-1F);
  return multiply_add(y, r * r, r) + 1.0F;
}
// e^x within 2 ulp for x in [-87.3, 88.3]: kernels/vector16.h's, operation for operation.
SIMT_DEVICE float exponential_within(float x) {
  const float rounder = 12582912.0F;  // 1.5 * 2^23: the sum's low bits are the nearest integer
  const float shifted = multiply_add(x, 1.44269504088896341F, rounder);
  const float n = shifted - rounder;
  const float r = multiply_add(n, 2.12194440e-4F, x - n * 0.693359375F);
  const float y = exponential_series(r);
  const std::uint32_t exponent = bits_of(shifted) - bits_of(rounder);
  return float_of(bits_of(y) + (exponent << 23));
}
// The same, clamped above, 0 below.
SIMT_DEVICE float exponential(float x) {
  const float y = exponential_within(minimum(88.3F, maximum(-87.3F, x)));
  return x < -87.3F ? 0.0F : y;
}

// exponential(x) for x <= 0, with its bits, in fewer instructions: of the bounds one is left, and n * 0.693359375 is
// exact (7 bits by 9), so that the difference may be fused.
SIMT_DEVICE float exponential_below(float x) {
  const float rounder = 12582912.0F;
  const float shifted = multiply_add(x, 1.44269504088896341F, rounder);
  const float n = shifted - rounder;
  const float r = multiply_add(n, 2.12194440e-4F, multiply_add(n, -0.693359375F, x));
  const float y = exponential_series(r);
  // The rounder's own bits are shifted out.
  return zero_below(-87.3F, x, float_of(bits_of(y) + (bits_of(shifted) << 23)));
}

}  // namespace simt

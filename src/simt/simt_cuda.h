// simt.h under nvcc: each function is an instruction or two. Sources: CUDA C++ Programming Guide; PTX ISA 8.x, sections
// "Warp-level matrix instructions" and "Asynchronous copy", "griddepcontrol". Included by simt.h alone.
#pragma once

#include "simt/shape.h"

#define SIMT_MEANING compiled
// Of one file each, since several may include the header of a kernel and be linked together.
#define SIMT_KERNEL static __global__ void
#define SIMT_KERNEL_OF(threads, blocks_of_a_processor) \
  static __global__ void __launch_bounds__(threads, blocks_of_a_processor)
#define SIMT_DEVICE __device__ __forceinline__
#define SIMT_UNROLL _Pragma("unroll")
#define SIMT_ROLLED _Pragma("unroll 1")

namespace simt {

extern __shared__ __align__(128) unsigned char shared_memory_of_block[];

SIMT_DEVICE int thread() {
  return static_cast<int>(threadIdx.x);
}
SIMT_DEVICE int threads() {
  return static_cast<int>(blockDim.x);
}
SIMT_DEVICE int block_x() {
  return static_cast<int>(blockIdx.x);
}
SIMT_DEVICE int block_y() {
  return static_cast<int>(blockIdx.y);
}
SIMT_DEVICE int block_z() {
  return static_cast<int>(blockIdx.z);
}

template <typename T>
class Shared {
 public:
  SIMT_DEVICE Shared() {}
  SIMT_DEVICE explicit Shared(T* data) : data_(data) {}
  SIMT_DEVICE T& operator[](int index) const { return data_[index]; }
  SIMT_DEVICE std::uint32_t address(int index) const {
    return static_cast<std::uint32_t>(__cvta_generic_to_shared(data_ + index));
  }

 private:
  T* data_ = nullptr;
};

template <typename T>
SIMT_DEVICE Shared<T> shared(int byte, int /*count*/) {
  return Shared<T>(reinterpret_cast<T*>(shared_memory_of_block + byte));
}

SIMT_DEVICE void sync_block() {
  __syncthreads();
}
SIMT_DEVICE void sync_warp() {
  __syncwarp();
}
// sm_80 has no such launches: a kernel begins when the one before has ended.
SIMT_DEVICE void let_next_begin() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
SIMT_DEVICE void wait_for_previous() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
SIMT_DEVICE float shuffle_xor(float value, int mask) {
  return __shfl_xor_sync(0xffffffffU, value, mask);
}
SIMT_DEVICE float shuffle(float value, int from) {
  return __shfl_sync(0xffffffffU, value, from);
}
SIMT_DEVICE bool any_of_warp(bool condition) {
  return __any_sync(0xffffffffU, condition) != 0;
}

// Lane 8 m + i gives row i of matrix m: 16 bytes at index `at`.
SIMT_DEVICE void load_matrix_x4(std::uint32_t (&r)[4], Shared<Bfloat16> from, int at) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(from.address(at)));
}
SIMT_DEVICE void load_matrix_transposed_x4(std::uint32_t (&r)[4], Shared<Bfloat16> from, int at) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(from.address(at)));
}
// d[16, 8] += a[16, 16] b[8, 16]^T in the fragments of the PTX ISA.
SIMT_DEVICE void mma_bf16(float (&d)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// To index `at`, a multiple of 16 bytes.
template <typename T>
SIMT_DEVICE void store16(Shared<T> to, int at, const Bytes16& value) {
  *reinterpret_cast<Bytes16*>(&to[at]) = value;
}
// 16 bytes to index `to`; both sides aligned to 16. Without `read` zeros are written and `from` is not touched.
template <typename T>
SIMT_DEVICE void copy_async16(Shared<T> to, int at, const void* from, bool read = true) {
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(to.address(at)), "l"(from),
               "r"(read ? 16 : 0)
               : "memory");
}
SIMT_DEVICE void commit_copies() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
// Until at most the `pending` last groups of this thread are on their way; a barrier shows them to the others.
template <int pending>
SIMT_DEVICE void wait_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
}

SIMT_DEVICE std::uint32_t bits_of(float value) {
  return __float_as_uint(value);
}
SIMT_DEVICE float float_of(std::uint32_t bits) {
  return __uint_as_float(bits);
}
SIMT_DEVICE float multiply_add(float a, float b, float c) {
  return __fmaf_rn(a, b, c);
}
// The steps that nvcc makes of a / b, without its check for operands that need others.
SIMT_DEVICE float quotient(float a, float b) {
  float inverse;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(inverse) : "f"(b));
  inverse = __fmaf_rn(inverse, __fmaf_rn(-b, inverse, 1.0F), inverse);
  float result = __fmul_rn(a, inverse);
  result = __fmaf_rn(inverse, __fmaf_rn(-b, result, a), result);
  return __fmaf_rn(inverse, __fmaf_rn(-b, result, a), result);
}
SIMT_DEVICE float magnitude(float value) {
  return fabsf(value);
}
SIMT_DEVICE float square_root(float value) {
  return __fsqrt_rn(value);
}
SIMT_DEVICE float minimum(float a, float b) {
  return a < b ? a : b;
}
SIMT_DEVICE float maximum(float a, float b) {
  return a > b ? a : b;
}
SIMT_DEVICE float larger(float a, float b) {
  return fmaxf(a, b);
}
// In assembly, since the compiler would jump around what makes `value`, and so part it from what stands beside it.
SIMT_DEVICE float zero_below(float limit, float x, float value) {
  float result;
  asm("{\n.reg .pred p;\nsetp.lt.f32 p, %1, %2;\nselp.f32 %0, 0f00000000, %3, p;\n}"
      : "=f"(result)
      : "f"(x), "f"(limit), "f"(value));
  return result;
}
// Two bfloat16, rounded to nearest, ties to even.
SIMT_DEVICE std::uint32_t pack_bfloat16(float low, float high) {
  std::uint32_t pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}

}  // namespace simt

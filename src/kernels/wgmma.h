// Hopper's own instructions, for linear_wgmma.cu: PTX ISA 8.x, "Asynchronous warpgroup level matrix instructions",
// "cp.async.bulk.tensor", "mbarrier". Private to nvcc code.
#pragma once

#include <cuda.h>

#include <cstdint>

namespace chorus::wgmma {

__device__ __forceinline__ std::uint32_t shared_address(const void* pointer) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(pointer));
}

__device__ __forceinline__ void init_barrier(std::uint64_t* barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(arrivals));
}
__device__ __forceinline__ void expect_bytes(std::uint64_t* barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)), "r"(bytes)
               : "memory");
}
__device__ __forceinline__ void arrive(std::uint64_t* barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier)) : "memory");
}
__device__ __forceinline__ void wait(std::uint64_t* barrier, int parity) {
  asm volatile(
      "{\n.reg .pred done;\nagain:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n@done bra gone;\nbra again;\ngone:\n}" ::"r"(
          shared_address(barrier)),
      "r"(parity)
      : "memory");
}
// A box of a tensor map, its first element at (column, row), to shared memory.
__device__ __forceinline__ void load_box(void* to, const CUtensorMap* map, std::uint64_t* barrier, int column,
                                         int row) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], [%2];" ::
          "r"(shared_address(to)),
      "l"(reinterpret_cast<std::uint64_t>(map)), "r"(shared_address(barrier)), "r"(column), "r"(row)
      : "memory");
}

// Prefetches the line of 128 bytes that holds `address` to the second-level cache.
__device__ __forceinline__ void prefetch(const void* address) {
  asm volatile("prefetch.global.L2 [%0];" ::"l"(address));
}

// Rows of 64 bfloat16 (128 bytes) in TMA's 128-byte swizzle, eight rows a kilobyte. The next 16 columns: + 2.
__device__ __forceinline__ std::uint64_t descriptor(const void* rows) {
  const std::uint64_t address = (shared_address(rows) & 0x3ffffU) >> 4;
  return address | std::uint64_t{1} << 16 | std::uint64_t{1024 >> 4} << 32 | std::uint64_t{1} << 62;
}

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
// A sum that begins at zero, and does so here: the compiler may not move this between products.
__device__ __forceinline__ void zero(float& sum) {
  asm volatile("mov.f32 %0, 0f00000000;" : "=f"(sum));
}
__device__ __forceinline__ void begin() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
// What this thread wrote to shared memory, barriers too, before TMA or wgmma reads it: then a barrier of the block.
__device__ __forceinline__ void show_to_copies() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}
__device__ __forceinline__ void commit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
template <int pending>
__device__ __forceinline__ void wait_products() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(pending) : "memory");
}
template <int registers>
__device__ __forceinline__ void more_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(registers));
}
template <int registers>
__device__ __forceinline__ void fewer_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(registers));
}

#define WGMMA_SUMS(i) "+f"(d[i][0]), "+f"(d[i][1]), "+f"(d[i][2]), "+f"(d[i][3])
#define WGMMA_SUMS_8(i)                                                                                         \
  WGMMA_SUMS(i), WGMMA_SUMS(i + 1), WGMMA_SUMS(i + 2), WGMMA_SUMS(i + 3), WGMMA_SUMS(i + 4), WGMMA_SUMS(i + 5), \
      WGMMA_SUMS(i + 6), WGMMA_SUMS(i + 7)
#define WGMMA_NAMES_0                                                                                                  \
  "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30," \
  "%31"
#define WGMMA_NAMES_1                                                                                                 \
  "%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%" \
  "60,%61,%62,%63"
#define WGMMA_NAMES_2                                                                                                 \
  "%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79,%80,%81,%82,%83,%84,%85,%86,%87,%88,%89,%90,%91,%" \
  "92,%93,%94,%95"
#define WGMMA_NAMES_3                                                                                                \
  "%96,%97,%98,%99,%100,%101,%102,%103,%104,%105,%106,%107,%108,%109,%110,%111,%112,%113,%114,%115,%116,%117,%118,%" \
  "119,%120,%121,%122,%123,%124,%125,%126,%127"
// d[64, n] += a[64, 16] b[n, 16]^T of a warpgroup; fragment i of a thread: outputs 8 i ... as in mma_bf16.
template <int n>
__device__ __forceinline__ void multiply(float (&d)[n / 8][4], std::uint64_t a, std::uint64_t b) {
  static_assert(n == 64 || n == 128 || n == 192 || n == 256);
  if constexpr (n == 64) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" WGMMA_NAMES_0 "}, %32, %33, 1, 1, 1, 0, 0;"
                 : WGMMA_SUMS_8(0)
                 : "l"(a), "l"(b));
  }
  if constexpr (n == 128) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" WGMMA_NAMES_0 "," WGMMA_NAMES_1
                 "}, %64, %65, 1, 1, 1, 0, 0;"
                 : WGMMA_SUMS_8(0), WGMMA_SUMS_8(8)
                 : "l"(a), "l"(b));
  }
  if constexpr (n == 192) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n192k16.f32.bf16.bf16 {" WGMMA_NAMES_0 "," WGMMA_NAMES_1
                 "," WGMMA_NAMES_2 "}, %96, %97, 1, 1, 1, 0, 0;"
                 : WGMMA_SUMS_8(0), WGMMA_SUMS_8(8), WGMMA_SUMS_8(16)
                 : "l"(a), "l"(b));
  }
  if constexpr (n == 256) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 {" WGMMA_NAMES_0 "," WGMMA_NAMES_1
                 "," WGMMA_NAMES_2 "," WGMMA_NAMES_3 "}, %128, %129, 1, 1, 1, 0, 0;"
                 : WGMMA_SUMS_8(0), WGMMA_SUMS_8(8), WGMMA_SUMS_8(16), WGMMA_SUMS_8(24)
                 : "l"(a), "l"(b));
  }
}
#undef WGMMA_SUMS_8
#undef WGMMA_NAMES_0
#undef WGMMA_NAMES_1
#undef WGMMA_NAMES_2
#undef WGMMA_NAMES_3
#undef WGMMA_SUMS
#endif

}  // namespace chorus::wgmma

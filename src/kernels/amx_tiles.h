// The tile registers of AMX, as linear_tiles.h wants them. Included only by *_amx.cc.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

namespace chorus {
namespace {

// LDTILECFG's operand (Intel SDM vol. 2A): palette 1, eight tiles of 16 rows of 64 bytes. Static: stores to one on the
// stack are lost, because the compiler does not know that the instruction reads all of it.
struct alignas(64) TileConfiguration {
  std::uint8_t palette = 1, start_row = 0;
  std::uint8_t reserved[14] = {};
  std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
static_assert(sizeof(TileConfiguration) == 64);
inline constexpr TileConfiguration configuration;

// Assembly, because GCC's intrinsics take the tile's number as a token and so no template argument.
struct AmxTiles {
  static void configure() { __asm__ volatile("ldtilecfg %0" ::"m"(configuration)); }
  static void release() { __asm__ volatile("tilerelease"); }
  template <int tile>
  static void zero() {
    __asm__ volatile("tilezero %%tmm%c0" ::"i"(tile));
  }
  template <int tile>
  static void load(const std::byte* data) {
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(data), "r"(std::int64_t{64}), "i"(tile) : "memory");
  }
  template <int sum, int a, int b>
  static void dot() {
    __asm__ volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(sum), "i"(a), "i"(b));
  }
  template <int tile>
  static void load_sums(const float* sums, std::int64_t stride) {
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(sums), "r"(stride * 4), "i"(tile) : "memory");
  }
  template <int tile>
  static void store_sums(float* sums, std::int64_t stride) {
    __asm__ volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(sums), "r"(stride * 4), "i"(tile) : "memory");
  }
  static void prefetch(const std::byte* line) { _mm_prefetch(reinterpret_cast<const char*>(line), _MM_HINT_T1); }
  static void prefetch_to_write(const float* line) { __asm__ volatile("prefetchw (%0)" ::"r"(line)); }
};

}  // namespace
}  // namespace chorus

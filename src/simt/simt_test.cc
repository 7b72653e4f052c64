#include "simt/simt.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

namespace simt {
namespace {

constexpr std::uint64_t seeds = 16;

// Whether the kernel gives `expected` under each seed; how many seeds it fails under.
template <typename Launch>
int wrong_seeds(const std::vector<float>& expected, Launch launch) {
  int wrong = 0;
  for (std::uint64_t seed = 0; seed < seeds; ++seed) {
    Emulator emulator(seed);
    wrong += launch(emulator) == expected ? 0 : 1;
  }
  return wrong;
}

enum class Fault { none, no_barrier, no_wait, early_copy, order_of_warps, overrun, half_barrier, divergence };

// Every thread gives its number to the next one through shared memory, `rounds` times.
SIMT_KERNEL pass_on(float* out, int rounds, Fault fault) {
  const int count = threads();
  const Shared<float> values = shared<float>(0, count);
  float mine = static_cast<float>(thread());
  for (int round = 0; round < rounds; ++round) {
    values[thread() + (fault == Fault::overrun ? 1 : 0)] = mine;
    if (fault != Fault::no_barrier) sync_block();
    mine = values[(thread() + 1) % count];
    if (fault != Fault::order_of_warps) sync_block();
  }
  if (fault == Fault::half_barrier && thread() < 32) sync_block();
  if (fault == Fault::divergence) lane() < 16 ? sync_warp() : static_cast<void>(shuffle(mine, 0));
  out[thread()] = mine;
}

std::vector<float> passed_on(Emulator& emulator, int rounds, Fault fault) {
  std::vector<float> out(128, std::numeric_limits<float>::quiet_NaN());
  emulator.launch({.threads = 128, .shared_bytes = 512}, pass_on, out.data(), rounds, fault);
  return out;
}

std::vector<float> shifted(int by) {
  std::vector<float> expected;
  for (int i = 0; i < 128; ++i) expected.push_back(static_cast<float>((i + by) % 128));
  return expected;
}

TEST(Emulator, BarriersMakeSharedMemoryVisible) {
  EXPECT_EQ(wrong_seeds(shifted(3), [](Emulator& e) { return passed_on(e, 3, Fault::none); }), 0);
}

TEST(Emulator, FindsAMissingBarrier) {
  EXPECT_GT(wrong_seeds(shifted(1), [](Emulator& e) { return passed_on(e, 1, Fault::no_barrier); }), 0);
}

// Without the second barrier a warp may overwrite what another one has yet to read. In ascending order of warps each
// one reads its neighbour's value before the neighbour goes on.
TEST(Emulator, FindsARaceThatAscendingOrderHides) {
  EXPECT_GT(wrong_seeds(shifted(3), [](Emulator& e) { return passed_on(e, 3, Fault::order_of_warps); }), 0);
}

TEST(EmulatorDeathTest, FindsAnIndexOutsideSharedMemory) {
  Emulator emulator(2);
  EXPECT_DEATH(passed_on(emulator, 1, Fault::overrun), "thread 127: shared memory index 128, limit 128");
}

TEST(EmulatorDeathTest, FindsABarrierThatSomeThreadsDoNotComeTo) {
  Emulator emulator(2);
  EXPECT_DEATH(passed_on(emulator, 1, Fault::half_barrier), "threads at a barrier of the block 32, limit 128");
}

TEST(EmulatorDeathTest, FindsLanesInDifferentOperations) {
  Emulator emulator(2);
  EXPECT_DEATH(passed_on(emulator, 1, Fault::divergence), "operation beside another one of its warp");
}

// A pipeline of two stages that adds up `tiles` tiles of 128 floats.
SIMT_KERNEL add_tiles(const float* from, int tiles, float* out, Fault fault) {
  const Shared<float> stages = shared<float>(0, 256);
  const auto load = [&](int tile) {
    if (tile < tiles && thread() < 32)
      copy_async16(stages, tile % 2 * 128 + thread() * 4, from + tile * 128 + thread() * 4);
    commit_copies();
  };
  float sum = 0;
  load(0);
  for (int tile = 0; tile < tiles; ++tile) {
    if (fault == Fault::early_copy) load(tile + 1);
    if (fault != Fault::no_wait) wait_copies<0>();
    sync_block();
    if (fault != Fault::early_copy) load(tile + 1);
    sum += stages[tile % 2 * 128 + (thread() + 1) % 128];
  }
  wait_copies<0>();
  out[thread()] = sum;
}

std::vector<float> added(Emulator& emulator, Fault fault) {
  std::vector<float> from, out(128);
  for (int i = 0; i < 5 * 128; ++i) from.push_back(static_cast<float>(i * i % 251));
  emulator.launch({.threads = 128, .shared_bytes = 1024}, add_tiles, from.data(), 5, out.data(), fault);
  return out;
}

TEST(Emulator, FindsAMissingWaitAndACopyThatBeginsTooEarly) {
  std::vector<float> expected(128, 0.0F);
  for (int i = 0; i < 5 * 128; ++i)
    expected[static_cast<std::size_t>((i + 127) % 128)] += static_cast<float>(i * i % 251);
  EXPECT_EQ(wrong_seeds(expected, [](Emulator& e) { return added(e, Fault::none); }), 0);
  EXPECT_GT(wrong_seeds(expected, [](Emulator& e) { return added(e, Fault::no_wait); }), 0);
  EXPECT_GT(wrong_seeds(expected, [](Emulator& e) { return added(e, Fault::early_copy); }), 0);
}

// Half of the threads leave before they have waited.
SIMT_KERNEL leave_early() {
  if (thread() < 16) return;
  in_order();
}

TEST(EmulatorDeathTest, FindsAThreadThatDoesNotWaitForTheKernelBefore) {
  Emulator emulator(0);
  emulator.launch({.threads = 32}, leave_early);  // begins when the one before has ended
  EXPECT_DEATH(emulator.launch({.threads = 32, .overlaps = true}, leave_early),
               "threads that waited for the kernel before 16, limit 32");
}

SIMT_KERNEL leave_copy(const float* from) {
  copy_async16(shared<float>(0, 128), thread() * 4, from + thread() * 4);
}

TEST(EmulatorDeathTest, FindsCopiesThatNobodyWaitsFor) {
  const std::vector<float> from(128);
  Emulator emulator(0);
  EXPECT_DEATH(emulator.launch({.threads = 32, .shared_bytes = 512}, leave_copy, from.data()),
               "copies that nobody waited for");
}

// One warp: out[16, 8] = a[16, 16] b[8, 16]^T, through shared memory; b also from its transpose.
SIMT_KERNEL multiply_once(const Bfloat16* a, const Bfloat16* b, const Bfloat16* b_transposed, float* out,
                          float* again) {
  const Shared<Bfloat16> as = shared<Bfloat16>(0, 256), bs = shared<Bfloat16>(512, 128),
                         ts = shared<Bfloat16>(768, 128);
  for (int i = lane(); i < 256; i += 32) as[i] = a[i];
  for (int i = lane(); i < 128; i += 32) bs[i] = b[i], ts[i] = b_transposed[i];
  sync_warp();
  std::uint32_t fa[4], fb[4], ft[4];
  load_matrix_x4(fa, as, lane() % 16 * 16 + lane() / 16 * 8);
  load_matrix_x4(fb, bs, lane() % 8 * 16 + lane() / 8 % 2 * 8);
  load_matrix_transposed_x4(ft, ts, lane() % 16 * 8);
  float d[4] = {}, e[4] = {};
  mma_bf16(d, fa, fb[0], fb[1]);
  mma_bf16(e, fa, ft[0], ft[1]);
  for (int i = 0; i < 4; ++i) {
    const int at = (lane() / 4 + i / 2 * 8) * 8 + lane() % 4 * 2 + i % 2;
    out[at] = d[i], again[at] = e[i];
  }
}

// Small integers: every sum is exact, so the fragments must be right to the bit.
TEST(Emulator, MatricesComeAndGoInTheFragmentsOfThePtxIsa) {
  std::vector<Bfloat16> a, b, t(128);
  std::vector<float> out(128), again(128);
  for (int i = 0; i < 256; ++i) a.push_back(to_bfloat16(static_cast<float>(i * 7 % 31 - 15)));
  for (int i = 0; i < 128; ++i) b.push_back(to_bfloat16(static_cast<float>(i * 5 % 23 - 11)));
  for (std::size_t n = 0; n < 8; ++n) {
    for (std::size_t k = 0; k < 16; ++k) t[k * 8 + n] = b[n * 16 + k];
  }
  Emulator emulator(3);
  emulator.launch({.shared_bytes = 1024}, multiply_once, a.data(), b.data(), t.data(), out.data(), again.data());
  for (std::size_t m = 0; m < 16; ++m) {
    for (std::size_t n = 0; n < 8; ++n) {
      float sum = 0;
      for (std::size_t k = 0; k < 16; ++k) sum += to_float(a[m * 16 + k]) * to_float(b[n * 16 + k]);
      EXPECT_EQ(out[m * 8 + n], sum);
    }
  }
  EXPECT_EQ(out, again);
}

SIMT_KERNEL sum_of_warp(float* out) {
  float value = static_cast<float>(thread());
  for (int mask = 16; mask > 0; mask /= 2) value += shuffle_xor(value, mask);
  out[block_x() * threads() + thread()] = shuffle(value, 7) + (any_of_warp(lane() == 5) ? 1000.0F : 0.0F);
}

TEST(Emulator, LanesSeeEachOthersValues) {
  std::vector<float> out(128);
  Emulator emulator(4);
  emulator.launch({.x = 2, .threads = 64}, sum_of_warp, out.data());
  for (std::size_t i = 0; i < 128; ++i) EXPECT_EQ(out[i], i % 64 < 32 ? 1496.0F : 2520.0F);
}

TEST(Simt, ExponentialIsWithinTwoUlp) {
  for (float x = -87.0F; x < 88.0F; x += 0.01F) {
    const double exact = std::exp(static_cast<double>(x));
    EXPECT_NEAR(static_cast<double>(exponential(x)) / exact, 1.0, 0x1p-22) << x;
  }
  EXPECT_EQ(exponential(0.0F), 1.0F);
  EXPECT_EQ(exponential(-std::numeric_limits<float>::infinity()), 0.0F);
}

TEST(Simt, ExponentialBelowHasTheBitsOfExponential) {
  for (std::uint32_t bits = 0x80000000U; bits < 0xff800000U; bits += 1013) {  // -0 and down, all binades
    ASSERT_EQ(bits_of(exponential_below(float_of(bits))), bits_of(exponential(float_of(bits)))) << float_of(bits);
  }
  for (float x = -88.0F; x < 0; x += 0x1.1p-13F) ASSERT_EQ(exponential_below(x), exponential(x)) << x;
  EXPECT_EQ(exponential_below(0.0F), 1.0F);
  EXPECT_EQ(exponential_below(-std::numeric_limits<float>::infinity()), 0.0F);
}

TEST(Simt, Bfloat16RoundsToNearestEven) {
  EXPECT_EQ(pack_bfloat16(1.00390625F, 1.01171875F), 0x3f823f80U);  // two ties
  EXPECT_EQ(to_bfloat16(std::numeric_limits<float>::infinity()), 0x7f80);
  EXPECT_TRUE(std::isnan(to_float(to_bfloat16(std::numeric_limits<float>::quiet_NaN()))));
}

}  // namespace
}  // namespace simt

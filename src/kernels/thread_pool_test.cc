#include "kernels/thread_pool.h"

#include <gtest/gtest.h>
#include <sched.h>

#include <numeric>

#include "kernels/isa.h"
#include "tensor/scratch.h"

namespace chorus {
namespace {

TEST(ThreadPool, EveryThreadRunsEveryCallOnce) {
  for (const int threads : {1, 2, 3, 8}) {  // 8: more than the cores of a small machine
    ThreadPool pool(threads);
    std::vector<int> calls(static_cast<std::size_t>(threads) * 64);
    for (int call = 0; call < 2000; ++call) {
      pool.run([&](int thread, int count) {
        EXPECT_EQ(count, threads);
        ++calls[static_cast<std::size_t>(thread) * 64];
      });
      for (int thread = 0; thread < threads; ++thread)
        ASSERT_EQ(calls[static_cast<std::size_t>(thread) * 64], call + 1);
    }
  }
}

TEST(ThreadPool, RangesCoverTheTotalWithoutOverlap) {
  ThreadPool pool(3);
  for (const std::int64_t total : {0, 1, 2, 3, 7, 100}) {
    std::vector<int> hits(static_cast<std::size_t>(total));
    pool.for_range(total, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) ++hits[static_cast<std::size_t>(i)];
    });
    EXPECT_EQ(std::accumulate(hits.begin(), hits.end(), 0), total);
    for (const int hit : hits) EXPECT_EQ(hit, 1);
  }
}

TEST(ThreadPool, MakingAndEndingManyPoolsLeavesNothingBehind) {
  for (int i = 0; i < 200; ++i) {
    ThreadPool pool(1 + i % 4);
    if (i % 3 == 0) pool.run([](int, int) {});
  }
}

// The caller is pinned too, so this runs in a thread that ends with the test.
TEST(ThreadPool, PinsEachThreadToItsCpu) {
  cpu_set_t allowed;
  ASSERT_EQ(sched_getaffinity(0, sizeof(allowed), &allowed), 0);
  std::vector<int> cpus;
  for (int cpu = 0; cpu < CPU_SETSIZE && cpus.size() < 2; ++cpu) {
    if (CPU_ISSET(static_cast<std::size_t>(cpu), &allowed)) cpus.push_back(cpu);
  }
  ThreadPool outer(2);
  outer.run([&](int thread, int) {
    if (thread != 1) return;
    ThreadPool pool(static_cast<int>(cpus.size()), cpus);
    pool.run([&](int inner, int) { EXPECT_EQ(sched_getcpu(), cpus[static_cast<std::size_t>(inner)]); });
  });
}

TEST(Scratch, MemoryIsAlignedAndDistinctAndStaysAfterWarmUp) {
  Scratch scratch;
  std::vector<std::byte*> first;
  for (int round = 0; round < 3; ++round) {
    std::vector<std::byte*> taken;
    Scratch::Scope scope(scratch);
    for (const std::size_t bytes :
         {std::size_t{1}, std::size_t{100}, std::size_t{3} << 20, std::size_t{64}, std::size_t{1} << 20}) {
      taken.push_back(scratch.take(bytes));
      EXPECT_EQ(reinterpret_cast<std::uintptr_t>(taken.back()) % 64, 0U);
      std::fill_n(taken.back(), bytes, static_cast<std::byte>(taken.size()));
    }
    for (std::size_t i = 0; i < taken.size(); ++i) EXPECT_EQ(*taken[i], static_cast<std::byte>(i + 1));
    if (round == 0) first = taken;
    EXPECT_EQ(taken, first);
  }
}

TEST(Scratch, AScopeGivesBackWhatItTook) {
  Scratch scratch;
  Scratch::Scope outer(scratch);
  scratch.take(64);
  std::byte* inside = nullptr;
  {
    Scratch::Scope inner(scratch);
    inside = scratch.take(5000000);
  }
  EXPECT_EQ(scratch.take(5000000), inside);
}

TEST(Isa, NamesAreChosenOrRefusedWithTheChoices) {
  EXPECT_EQ(available_isas().back(), Isa::scalar);
  for (const Isa isa : available_isas()) EXPECT_EQ(*choose_isa(name_of(isa)), isa);
  EXPECT_EQ(*choose_isa("auto"), available_isas().front());
  const auto unknown = choose_isa("avx9");
  ASSERT_FALSE(unknown.ok());
  EXPECT_NE(unknown.error().message.find("avx9"), std::string::npos);
  EXPECT_NE(unknown.error().message.find("scalar"), std::string::npos);
}

}  // namespace
}  // namespace chorus

// Goal: the collectives of a step allocate nothing, over any backend. Method: operator new counts, each rank for its
// own thread. Not under the sanitizers, which replace operator new themselves.
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#include <gtest/gtest.h>

#include <cstdlib>
#include <new>

#include "testing/group_testing.h"

namespace {
thread_local std::size_t allocations = 0;
}  // namespace

[[gnu::noinline]] void* operator new(std::size_t bytes) {
  ++allocations;
  if (void* memory = std::malloc(bytes)) return memory;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* memory) noexcept {
  std::free(memory);
}
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept {
  std::free(memory);
}

namespace chorus {
namespace {

class TransportAllocation : public testing::TestWithParam<Backend> {};
INSTANTIATE_TEST_SUITE_P(Worlds, TransportAllocation, testing::ValuesIn(all_backends),
                         [](const auto& info) { return name_of(info.param); });

TEST_P(TransportAllocation, OfAWarmStepIsNone) {
  const auto work = with_group([](Group& group) -> std::string {
    std::vector<float> sum(20'000), all(400), part(100);
    const auto step = [&] {
      return group.all_reduce_tree(sum).ok() && group.all_gather(part, all).ok() &&
             group.broadcast(std::as_writable_bytes(std::span(sum)), 0).ok() && group.barrier().ok() &&
             group.wait_for((group.rank() + 1) % group.size(), 0).ok();
    };
    for (int warm_up = 0; warm_up < 3; ++warm_up) {
      if (!step()) return "failed";
    }
    const std::size_t before = allocations;
    for (int steps = 0; steps < 20; ++steps) {
      if (!step()) return "failed";
    }
    const std::size_t count = allocations - before;
    if (!group.barrier().ok()) return "failed";  // nobody leaves while another still waits for him
    return count == 0 ? "" : fmt::format("{} allocations", count);
  });
  EXPECT_EQ(run_as_threads(make_test_world(GetParam(), 4), work), "");
}

}  // namespace
}  // namespace chorus
#endif

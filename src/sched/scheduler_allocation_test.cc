// Goal: a step of decoding allocates nothing, with one plan in flight or several. Method: operator new counts; 1000
// steps of 16 sequences after warm-up. Not under the sanitizers, which replace operator new themselves.
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#include <gtest/gtest.h>

#include <cstdlib>
#include <new>
#include <vector>

#include "sched/scheduler.h"
#include "testing/toy_model.h"

namespace {
// Of this program; tests run on one thread.
std::size_t allocations = 0;
}  // namespace

void* operator new(std::size_t bytes) {
  ++allocations;
  if (void* memory = std::malloc(bytes)) return memory;
  throw std::bad_alloc();
}
void operator delete(void* memory) noexcept {
  std::free(memory);
}
void operator delete(void* memory, std::size_t) noexcept {
  std::free(memory);
}

namespace chorus {
namespace {

TEST(SchedulerAllocation, AStepOfDecodingAllocatesNothing) {
  struct Shape {
    bool caching;
    int plans, pools;
  };
  for (const auto& [caching, plans, pools] : {Shape{false, 1, 1}, {true, 1, 1}, {true, 3, 4}}) {
    SchedulerConfig config;
    config.max_num_seqs = 16, config.max_model_len = 2048, config.kv_blocks = 2048, config.vocab_size = 1000;
    config.enable_prefix_caching = caching;
    config.plans_in_flight_max = plans, config.kv_pools = pools;
    const auto scheduler = make_scheduler(config);
    ToyModel model({.kv_blocks = 2048, .block_size = 16, .vocab_size = 1000, .verify_context = false});
    for (std::uint64_t number = 0; number < 16; ++number) {
      Request request;
      request.id = {0, number};
      request.prompt.assign(20, static_cast<TokenId>(number));
      request.params.max_tokens = 1500;
      request.params.seed = number;
      scheduler->add(request);
    }
    std::vector<StepResult> results(static_cast<std::size_t>(plans));
    std::size_t submitted = 0, collected = 0, told = 0;
    std::vector<TokenEvent> events;
    const auto step = [&] {
      events.clear();
      while (scheduler->plans_in_flight() < plans) {
        const StepPlan& plan = scheduler->schedule(0);
        if (plan.rows == 0) break;
        model.execute(plan, &results[submitted++ % results.size()]);
      }
      scheduler->complete(results[collected++ % results.size()], 0, &events);
      told += events.size();
    };
    for (int warm_up = 0; warm_up < 30; ++warm_up) step();
    const std::size_t before = allocations, told_before = told;
    for (int steps = 0; steps < 1000; ++steps) step();
    EXPECT_EQ(allocations - before, 0U) << "caching " << caching << " plans " << plans;
    const auto sequences = 16.0 / plans;
    EXPECT_NEAR(static_cast<double>(told - told_before), 1000 * sequences, 16) << "all are served in turn";
  }
}

}  // namespace
}  // namespace chorus

#endif

// Goal: a step of decoding allocates nothing. Method: operator new counts; 1000 steps of 16 sequences after warm-up.
#include <gtest/gtest.h>

#include <cstdlib>
#include <new>

#include "sched/scheduler.h"
#include "sched/toy_model.h"

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
  for (const bool caching : {false, true}) {
    SchedulerConfig config;
    config.max_num_seqs = 16, config.max_model_len = 2048, config.kv_blocks = 2048, config.vocab_size = 1000;
    config.enable_prefix_caching = caching;
    const auto scheduler = make_scheduler(config);
    ToyModel model({.kv_blocks = 2048, .block_size = 16, .vocab_size = 1000, .verify_context = false});
    for (RequestId id = 0; id < 16; ++id) {
      Request request;
      request.id = id;
      request.prompt.assign(20, static_cast<TokenId>(id));
      request.params.max_tokens = 1500;
      request.params.seed = id;
      scheduler->add(request);
    }
    StepResult result;
    std::vector<TokenEvent> events;
    const auto step = [&] {
      events.clear();
      model.execute(scheduler->schedule(), &result);
      scheduler->complete(result, &events);
    };
    for (int warm_up = 0; warm_up < 10; ++warm_up) step();
    const std::size_t before = allocations;
    for (int steps = 0; steps < 1000; ++steps) step();
    EXPECT_EQ(allocations - before, 0U) << "caching " << caching;
    EXPECT_EQ(events.size(), 16U);
  }
}

}  // namespace
}  // namespace chorus

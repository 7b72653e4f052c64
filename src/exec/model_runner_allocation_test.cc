// Goal: a step of decoding allocates nothing, whatever is sampled and told of it. Method: operator new counts; steps
// after a warm-up, by one thread: of several each warms up when it first gets a row. Not under the sanitizers, which
// replace operator new themselves.
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <new>

#include "testing/planned_sequences.h"
#include "testing/tiny_model.h"

namespace {
std::atomic<std::size_t> allocations = 0;  // of this program
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

TEST(ModelRunnerAllocation, AStepOfDecodingAllocatesNothing) {
  const TinyModel model = load_tiny_model(std::string(CHORUS_TEST_DATA) + "/models/llama", "bfloat16");
  ModelRunner::Options options;
  options.isa = model.weights.isa;
  options.dtype = model.weights.dtype;
  options.kv_dtype = kv_dtype_of(options.dtype);
  options.max_model_len = model.config.max_position_embeddings;
  options.kv_cache_bytes = std::uint64_t{4} << 20;
  const auto runner = ModelRunner::create(model.config, options, {}, 0,
                                          {model.weights.shard(0), model.weights.shard_bytes(0)}, nullptr, {})
                          .value();
  std::vector<PlannedSequence> sequences;
  constexpr std::int32_t prompt = 20, warm_up = 10, steps = 200;
  for (std::int32_t number = 0; number < 8; ++number) {
    sequences.push_back(planned_sequence(static_cast<std::uint64_t>(number), prompt, warm_up + steps, number * 20));
    SamplingParams& params = sequences.back().params;
    if (number % 2 == 0) continue;
    params.temperature = 0.8, params.top_k = 20, params.top_p = 0.9, params.repetition_penalty = 1.1;
    params.logprobs.reset();
  }
  std::vector<StepPlan> plans(warm_up + steps);
  for (std::int32_t step = 0; step < warm_up + steps; ++step) {
    std::vector<PlannedRows> rows;
    for (const PlannedSequence& sequence : sequences) {
      rows.push_back(step == 0 ? PlannedRows{&sequence, 0, prompt} : PlannedRows{&sequence, prompt + step - 1, 1});
    }
    plans[static_cast<std::size_t>(step)] = plan_of(rows);
  }
  StepResult result;
  for (std::size_t step = 0; step < plans.size(); ++step) {
    const std::size_t before = allocations;
    ASSERT_TRUE(runner->execute(plans[step], &result).ok());
    if (step < warm_up) continue;
    ASSERT_EQ(allocations - before, 0U) << "step " << step;
  }
}

}  // namespace
}  // namespace chorus

#endif

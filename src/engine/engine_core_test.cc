#include "engine/engine_core.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "sched/toy_model.h"

namespace chorus {
namespace {

using testing::HasSubstr;
using testing::SizeIs;

// The toy model behind the executor seam; fails in step `fail_at`, counted from 1, if given.
class ToyExecutor final : public Executor {
 public:
  explicit ToyExecutor(int fail_at = 0) : fail_at_(fail_at) {}
  ExecutorInfo info() const override {
    return {model_.config().kv_blocks, model_.config().block_size, model_.config().vocab_size};
  }
  Result<void> execute(const StepPlan& plan, StepResult* result) override {
    if (++calls_ == fail_at_) return fail(ErrorCode::internal, "the worker is gone");
    model_.execute(plan, result);
    return {};
  }

 private:
  int fail_at_;
  int calls_ = 0;
  ToyModel model_{{.kv_blocks = 16, .block_size = 4, .vocab_size = 100}};
};

ModelConfig toy_config() {
  ModelConfig model;
  model.max_position_embeddings = 48;
  model.vocab_size = 100;
  return model;
}

Request request_of(RequestId id, std::size_t prompt_length, std::uint32_t max_tokens) {
  Request request;
  request.id = id;
  request.prompt.assign(prompt_length, static_cast<TokenId>(id));
  request.params.max_tokens = max_tokens;
  return request;
}

TEST(EngineCore, ServesRequestsAndCountsTheLoad) {
  const auto engine = make_engine_core({}, toy_config(), std::make_unique<ToyExecutor>());
  EXPECT_FALSE(engine->has_work());
  engine->add(request_of(1, 10, 3));
  engine->add(request_of(2, 5, 2));
  EXPECT_EQ(engine->load().waiting, 2U);
  std::vector<TokenEvent> events;
  ASSERT_TRUE(engine->step(0, &events).ok());
  EXPECT_EQ(engine->load().running, 2U);
  EXPECT_EQ(engine->load().kv_blocks_free, 16U - 3U - 2U);
  while (engine->has_work()) ASSERT_TRUE(engine->step(0, &events).ok());
  EXPECT_THAT(events, SizeIs(5));
  const EngineLoad load = engine->load();
  EXPECT_EQ(load.running + load.waiting, 0U);
  EXPECT_EQ(load.kv_blocks_free, load.kv_blocks_total);
  EXPECT_EQ(load.steps, 3U);
  EXPECT_EQ(load.prompt_tokens, 15U);
  EXPECT_EQ(load.output_tokens, 5U);
}

TEST(EngineCore, TakesTheModelLengthAndEosFromTheModelUnlessConfigured) {
  std::vector<TokenEvent> events;
  EngineConfig config;
  auto engine = make_engine_core(config, toy_config(), std::make_unique<ToyExecutor>());
  engine->add(request_of(1, 49, 1));
  ASSERT_TRUE(engine->step(0, &events).ok());
  EXPECT_THAT(events.at(0).error, HasSubstr("longer than max_model_len 48"));
  config.max_model_len = 20;
  ModelConfig model = toy_config();
  for (TokenId token = 0; token < 100; ++token) model.eos_token_ids.push_back(token);
  engine = make_engine_core(config, model, std::make_unique<ToyExecutor>());
  engine->add(request_of(1, 21, 1));
  engine->add(request_of(2, 10, 5));
  events.clear();
  ASSERT_TRUE(engine->step(0, &events).ok());
  EXPECT_THAT(events.at(0).error, HasSubstr("longer than max_model_len 20"));
  EXPECT_EQ(events.at(1).finish, FinishReason::stop);
}

TEST(EngineCore, AbortEndsARequestSilentlyAndFreesItsBlocks) {
  const auto engine = make_engine_core({}, toy_config(), std::make_unique<ToyExecutor>());
  std::vector<TokenEvent> events;
  engine->add(request_of(1, 10, 30));
  ASSERT_TRUE(engine->step(0, &events).ok());
  engine->abort_choice(1, 0);
  engine->abort(1);
  EXPECT_FALSE(engine->has_work());
  EXPECT_THAT(events, SizeIs(1));
  EXPECT_EQ(engine->load().kv_blocks_free, 16U);
}

TEST(EngineCore, PassesOnTheExecutorsDeath) {
  const auto engine = make_engine_core({}, toy_config(), std::make_unique<ToyExecutor>(2));
  std::vector<TokenEvent> events;
  engine->add(request_of(1, 10, 3));
  ASSERT_TRUE(engine->step(0, &events).ok());
  const Result<void> dead = engine->step(0, &events);
  ASSERT_FALSE(dead.ok());
  EXPECT_EQ(dead.error().message, "the worker is gone");
}

TEST(EngineCore, RefusedRequestsNeedNoExecutor) {
  const auto engine = make_engine_core({}, toy_config(), std::make_unique<ToyExecutor>(1));
  std::vector<TokenEvent> events;
  engine->add(request_of(1, 0, 3));
  ASSERT_TRUE(engine->step(0, &events).ok());
  EXPECT_EQ(events.at(0).finish, FinishReason::error);
}

}  // namespace
}  // namespace chorus

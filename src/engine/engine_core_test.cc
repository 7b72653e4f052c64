#include "engine/engine_core.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "testing/request_testing.h"
#include "testing/toy_pipeline.h"

namespace chorus {
namespace {

using testing::HasSubstr;
using testing::SizeIs;

// The toy model behind the executor seam. Counts what it is asked, if told where.
class ToyExecutor final : public Executor {
 public:
  struct Options {
    int fail_submit_at = 0, fail_collect_at = 0;  // counted from 1
    std::int32_t plans_in_flight_max = 1, kv_pools = 1, kv_pool_tokens = 256;
    std::vector<std::size_t>* in_flight = nullptr;  // plans, at each collect
  };
  ToyExecutor() : ToyExecutor(Options{}) {}
  explicit ToyExecutor(const Options& options)
      : options_(options),
        pipeline_({.kv_blocks = 16,
                   .block_size = 4,
                   .vocab_size = 100,
                   .plans_in_flight_max = options.plans_in_flight_max,
                   .kv_pools = options.kv_pools,
                   .kv_pool_tokens = options.kv_pool_tokens}) {}
  ExecutorInfo info() const override {
    return {.kv_blocks = 16,
            .block_size = 4,
            .vocab_size = 100,
            .plans_in_flight_max = options_.plans_in_flight_max,
            .kv_pools = options_.kv_pools,
            .kv_pool_tokens = options_.kv_pool_tokens};
  }
  Result<void> submit(const StepPlan& plan) override {
    if (++submitted_ == options_.fail_submit_at) return fail(ErrorCode::internal, "the worker is gone");
    pipeline_.submit(plan);
    return {};
  }
  Result<void> collect(StepResult* result) override {
    if (options_.in_flight != nullptr) options_.in_flight->push_back(pipeline_.in_flight());
    if (++collected_ == options_.fail_collect_at) return fail(ErrorCode::internal, "the last stage is gone");
    pipeline_.collect(result);
    return {};
  }

 private:
  Options options_;
  int submitted_ = 0, collected_ = 0;
  ToyPipeline pipeline_;
};

ModelConfig toy_config() {
  ModelConfig model;
  model.max_position_embeddings = 48;
  model.vocab_size = 100;
  return model;
}

Request request_of(std::uint64_t number, std::size_t prompt_length, std::uint32_t max_tokens) {
  Request request;
  request.id = {0, number};
  request.prompt.assign(prompt_length, static_cast<TokenId>(number));
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

// Goal: no member of a load report is forgotten. Method: requests that wait, share a prompt and do not fit together; a
// member that stays 0 tells nothing.
TEST(EngineCore, EachMemberOfTheLoadTellsSomething) {
  const auto engine = make_engine_core({}, toy_config(), std::make_unique<ToyExecutor>());
  std::vector<bool> seen(member_count<EngineLoad>());
  const auto look = [&] {
    const EngineLoad load = engine->load();
    std::size_t member = 0;
    for_each_field(load, [&](const auto& field) {
      if constexpr (requires { field.empty(); }) {
        seen[member] = seen[member] || std::ranges::any_of(field, [](auto count) { return count != 0; });
      } else {
        seen[member] = seen[member] || field != 0;
      }
      ++member;
    });
  };
  for (std::uint64_t number = 1; number <= 3; ++number) {
    engine->add(request_of(number, 10, 30));
    look();
  }
  std::vector<TokenEvent> events;
  while (engine->has_work()) {
    ASSERT_TRUE(engine->step(0, &events).ok());
    look();
  }
  engine->reset_prefix_cache();
  look();
  for (std::size_t member = 0; member < seen.size(); ++member) EXPECT_TRUE(seen[member]) << "member " << member;
  EXPECT_EQ(engine->load().kv_blocks_free, 16U);
  EXPECT_EQ(engine->load().output_tokens, 90U);
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
  engine->abort_choice(1_id, 0);
  engine->abort(1_id);
  EXPECT_FALSE(engine->has_work());
  EXPECT_THAT(events, SizeIs(1));
  EXPECT_EQ(engine->load().kv_blocks_free, 16U);
}

TEST(EngineCore, PassesOnTheExecutorsDeath) {
  for (const bool in_submit : {true, false}) {
    ToyExecutor::Options options;
    (in_submit ? options.fail_submit_at : options.fail_collect_at) = 2;
    const auto engine = make_engine_core({}, toy_config(), std::make_unique<ToyExecutor>(options));
    std::vector<TokenEvent> events;
    engine->add(request_of(1, 10, 3));
    ASSERT_TRUE(engine->step(0, &events).ok());
    const Result<void> dead = engine->step(0, &events);
    ASSERT_FALSE(dead.ok());
    EXPECT_EQ(dead.error().message, in_submit ? "the worker is gone" : "the last stage is gone");
  }
}

using Told = std::map<RequestId, std::vector<TokenId>>;

Told serve(const ToyExecutor::Options& options) {
  const auto engine = make_engine_core({}, toy_config(), std::make_unique<ToyExecutor>(options));
  for (std::uint64_t number = 1; number <= 8; ++number) engine->add(request_of(number, 3, 6));
  Told told;
  std::vector<TokenEvent> events;
  while (engine->has_work()) {
    events.clear();
    EXPECT_TRUE(engine->step(0, &events).ok());
    for (const TokenEvent& event : events) told[event.request].push_back(event.token.value());
  }
  EXPECT_EQ(engine->load().kv_blocks_free, 16U);
  return told;
}

TEST(EngineCore, KeepsEveryStageBusyAndTellsTheSameTokens) {
  const Told expected = serve({});
  EXPECT_THAT(expected, SizeIs(8));
  for (const std::int32_t stages : {2, 3, 4}) {
    std::vector<std::size_t> in_flight;
    EXPECT_EQ(serve({.plans_in_flight_max = stages, .kv_pools = 2, .kv_pool_tokens = 4, .in_flight = &in_flight}),
              expected);
    EXPECT_EQ(in_flight.front(), static_cast<std::size_t>(stages)) << "every stage has a plan from the first step on";
    EXPECT_EQ(in_flight.back(), 1U);
  }
}

TEST(EngineCore, APlanInFlightIsWorkAlsoWhenItsRequestIsGone) {
  const auto engine =
      make_engine_core({}, toy_config(), std::make_unique<ToyExecutor>(ToyExecutor::Options{.plans_in_flight_max = 2}));
  std::vector<TokenEvent> events;
  engine->add(request_of(1, 10, 30));
  engine->add(request_of(2, 10, 1));
  ASSERT_TRUE(engine->step(0, &events).ok());  // of 2 the plan is in flight
  EXPECT_THAT(events, SizeIs(1));
  engine->abort(1_id);
  engine->abort(2_id);
  EXPECT_EQ(engine->load().kv_blocks_free, 16U);
  EXPECT_TRUE(engine->has_work());
  ASSERT_TRUE(engine->step(0, &events).ok());
  EXPECT_THAT(events, SizeIs(1));
  EXPECT_FALSE(engine->has_work());
}

TEST(EngineCore, RefusedRequestsNeedNoExecutor) {
  const auto engine =
      make_engine_core({}, toy_config(), std::make_unique<ToyExecutor>(ToyExecutor::Options{.fail_submit_at = 1}));
  std::vector<TokenEvent> events;
  engine->add(request_of(1, 0, 3));
  ASSERT_TRUE(engine->step(0, &events).ok());
  EXPECT_EQ(events.at(0).finish, FinishReason::error);
}

}  // namespace
}  // namespace chorus

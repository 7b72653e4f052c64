// Goal: each sampling parameter does something, on the whole way from a request to its tokens: scheduler, executor,
// model, sampler. Method: for each member of SamplingParams two requests that differ in it alone and must be answered
// differently, on a trained model. A member without such a pair fails the test.
#include <gtest/gtest.h>

#include "engine/engine_core.h"
#include "exec/replica_executor.h"
#include "testing/tiny_model.h"

namespace chorus {
namespace {

constexpr TokenId eos = 2;
const std::vector<TokenId> prompt = {1, 403, 407, 261, 378};  // " Once upon a time", nearly

class SamplingParamsTest : public testing::Test {
 protected:
  // All that is said of the request until it ends.
  std::vector<TokenEvent> answer(const SamplingParams& params) {
    WorkerSetup setup;
    setup.config = model.engine;
    setup.model = model.config;
    setup.kv_cache_bytes = std::uint64_t{4} << 20;
    const auto engine =
        make_engine_core(setup.config, setup.model, make_replica_executor(setup, model.weights).value());
    Request request;
    request.id = {0, 1};
    request.prompt = prompt;
    request.params = params;
    engine->add(request);
    std::vector<TokenEvent> events;
    while (engine->has_work()) {
      const auto stepped = engine->step(0, &events);
      if (!stepped.ok()) ADD_FAILURE() << stepped.error().message;
      if (!stepped.ok()) break;
    }
    for (TokenEvent& event : events) event.prefill.reset();  // has times
    return events;
  }

  const TinyModel model = load_tiny_model(std::string(CHORUS_MODELS) + "/stories260k");
};

struct Pair {
  SamplingParams one, other;
};

// In the order of the members.
std::vector<Pair> pairs() {
  std::vector<Pair> all;
  using P = SamplingParams;
  const auto differ = [&](auto&& in_both, auto&& in_other) {
    P params;
    params.seed = 5;
    params.max_tokens = 40;
    in_both(params);
    all.push_back({params, params});
    in_other(all.back().other);
  };
  const auto drawn = [](P&) {};
  const auto greedy = [](P& params) { params.temperature = 0; };
  const auto ends_at_once = [](P& params) {
    params.temperature = 0;
    params.logit_bias = {{eos, 100.0F}};
  };
  differ(drawn, [](P& params) { params.n = 2; });
  differ(drawn, [](P& params) { params.temperature = 0.5; });
  differ(drawn, [](P& params) { params.top_p = 0.3; });
  differ(drawn, [](P& params) { params.top_k = 2; });
  differ(drawn, [](P& params) { params.min_p = 0.5; });
  differ(greedy, [](P& params) { params.presence_penalty = 2; });
  differ(greedy, [](P& params) { params.frequency_penalty = 2; });
  differ(greedy, [](P& params) { params.repetition_penalty = 3; });
  differ(drawn, [](P& params) { params.seed = 6; });
  differ(greedy, [](P& params) { params.max_tokens = 39; });
  differ(ends_at_once, [](P& params) { params.min_tokens = 3; });
  differ(ends_at_once, [](P& params) { params.ignore_eos = true; });
  differ(greedy, [](P& params) {
    for (TokenId token = 200; token < 512; ++token) params.stop_token_ids.push_back(token);
  });
  differ(greedy, [](P& params) { params.logprobs = 0; });
  differ(greedy, [](P& params) { params.prompt_logprobs = 0; });
  differ(greedy, [](P& params) { params.logit_bias = {{300, 100.0F}}; });
  differ(greedy, [](P& params) { params.allowed_token_ids = {300, 301}; });
  differ(greedy, [](P& params) {
    for (TokenId token = 200; token < 512; ++token) params.bad_words.push_back({token});
  });
  differ([](P& params) { params.logprobs = 0; }, [](P& params) { params.logprob_token_ids = {5, 300}; });
  // How many of the most likely are told.
  differ([](P& params) { params.logprobs = 0; }, [](P& params) { params.logprobs = 2; });
  differ([](P& params) { params.prompt_logprobs = 0; }, [](P& params) { params.prompt_logprobs = 2; });
  return all;
}

// By member: whether the two differ in it.
std::vector<bool> differences(const SamplingParams& one, const SamplingParams& other) {
  return SamplingParams::fields(one, [&](const auto&... left) {
    return SamplingParams::fields(other, [&](const auto&... right) { return std::vector<bool>{!(left == right)...}; });
  });
}

TEST_F(SamplingParamsTest, EachMemberChangesWhatIsAnswered) {
  std::vector<bool> seen(member_count<SamplingParams>());
  for (const auto& [one, other] : pairs()) {
    const std::vector<bool> changed = differences(one, other);
    ASSERT_EQ(std::ranges::count(changed, true), 1);
    const auto member = std::ranges::find(changed, true) - changed.begin();
    seen[static_cast<std::size_t>(member)] = true;
    const auto answered = answer(one);
    ASSERT_FALSE(answered.empty());
    EXPECT_EQ(answered.back().error, "");
    EXPECT_EQ(answer(one), answered) << "member " << member << ": the same request";
    EXPECT_FALSE(answer(other) == answered) << "member " << member << " of SamplingParams changes nothing";
  }
  for (std::size_t member = 0; member < seen.size(); ++member) {
    EXPECT_TRUE(seen[member]) << "member " << member << " of SamplingParams has no pair here";
  }
}

// What min_tokens masks is sampled as soon as it is not.
TEST_F(SamplingParamsTest, NoTokenThatEndsIsSampledBelowMinTokens) {
  SamplingParams params;
  params.temperature = 0;
  params.logit_bias = {{eos, 100.0F}};
  params.min_tokens = 3;
  const auto events = answer(params);
  ASSERT_EQ(events.size(), 4U);
  for (std::size_t i = 0; i < 3; ++i) EXPECT_NE(events[i].token, eos);
  EXPECT_EQ(events[3].token, eos);
  EXPECT_EQ(events[3].finish, FinishReason::stop);
}

}  // namespace
}  // namespace chorus

#include "sched/finish.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "sched/validate_request.h"

namespace chorus {
namespace {

using testing::HasSubstr;
const std::vector<TokenId> eos = {2, 5};

Finish check(const SamplingParams& params, std::vector<TokenId> output, std::int64_t limit = 100) {
  return finish_check(params, eos, output, limit);
}

TEST(FinishCheck, EndsByEosStopIdOrLength) {
  SamplingParams params;
  params.stop_token_ids = {5, 9};
  EXPECT_EQ(check(params, {1, 2, 3}), (Finish{}));
  EXPECT_EQ(check(params, {1, 2}), (Finish{FinishReason::stop, 2}));
  EXPECT_EQ(check(params, {9}), (Finish{FinishReason::stop, 9}));
  EXPECT_EQ(check(params, {5}), (Finish{FinishReason::stop, 5})) << "EOS and stop id";
  EXPECT_EQ(check(params, {1, 1}, 2), (Finish{FinishReason::length, std::nullopt}));
  EXPECT_EQ(check(params, {1, 9}, 2), (Finish{FinishReason::stop, 9})) << "a stop id before length";
  EXPECT_EQ(check(params, {}, 2), (Finish{}));
}

TEST(FinishCheck, IgnoresEosWhenAskedButNotStopIds) {
  SamplingParams params;
  params.ignore_eos = true;
  EXPECT_EQ(check(params, {2}), (Finish{}));
  params.stop_token_ids = {2};
  EXPECT_EQ(check(params, {2}), (Finish{FinishReason::stop, 2}));
}

TEST(FinishCheck, NothingButLengthEndsAChoiceBelowMinTokens) {
  SamplingParams params;
  params.min_tokens = 2;
  EXPECT_EQ(check(params, {1, 2}), (Finish{}));
  EXPECT_EQ(check(params, {1, 1, 2}), (Finish{FinishReason::stop, 2}));
  EXPECT_EQ(check(params, {1}, 1), (Finish{FinishReason::length, std::nullopt}));
  params.stop_token_ids = {2, 9};
  EXPECT_EQ(banned_below_min_tokens(params, eos), (std::vector<TokenId>{2, 5, 9}));
  params.min_tokens = 0;
  EXPECT_TRUE(banned_below_min_tokens(params, eos).empty());
}

TEST(OutputLimit, IsClampedToTheModelLength) {
  SamplingParams params;
  params.max_tokens = 50;
  EXPECT_EQ(output_limit(params, 10, 100), 50);
  EXPECT_EQ(output_limit(params, 90, 100), 10);
}

std::string refusal(std::size_t prompt_length, std::uint32_t max_tokens, TokenId token = 1) {
  SchedulerConfig config;
  config.max_model_len = 32, config.block_size = 4, config.kv_blocks = 6, config.vocab_size = 10;
  Request request;
  request.prompt.assign(prompt_length, token);
  request.params.max_tokens = max_tokens;
  return validate_request(request, config).value_or("");
}

TEST(ValidateRequest, SaysWhatTheLimitAndWhatNext) {
  EXPECT_EQ(refusal(1, 1), "");
  EXPECT_EQ(refusal(0, 1), "prompt is empty: give at least one token");
  EXPECT_EQ(refusal(33, 1), "prompt has 33 tokens, longer than max_model_len 32: shorten it or raise --max-model-len");
  EXPECT_THAT(refusal(32, 1), HasSubstr("leaves no room for output in max_model_len 32"));
  EXPECT_THAT(refusal(1, 0), HasSubstr("max_tokens is 0"));
  EXPECT_THAT(refusal(3, 1, 10), HasSubstr("prompt token 0 is 10, outside the vocabulary [0, 10)"));
  EXPECT_THAT(refusal(3, 1, -1), HasSubstr("outside the vocabulary"));
}

// 6 blocks of 4 hold 24 positions; the last output token needs none.
TEST(ValidateRequest, RefusesOnlyWhatNeedsMoreBlocksThanThereAre) {
  EXPECT_EQ(refusal(20, 5), "");
  EXPECT_THAT(refusal(20, 6), HasSubstr("need 7 KV blocks of 4 tokens, there are 6"));
  EXPECT_EQ(refusal(24, 1), "");
  EXPECT_NE(refusal(25, 1), "");
  EXPECT_NE(refusal(20, 1000), "") << "clamped to 12";
}

// 7 blocks in 2 pools: 4 and 3. With turns of 2 blocks 28 positions need 4 and 3, 29 need 4 and 4.
TEST(ValidateRequest, RefusesWhatNeedsMoreBlocksOfAPoolThanThatHas) {
  SchedulerConfig config;
  config.max_model_len = 100, config.block_size = 4, config.kv_blocks = 7, config.vocab_size = 10;
  config.kv_pools = 2, config.kv_pool_tokens = 8;
  Request request;
  request.prompt.assign(24, 1);
  request.params.max_tokens = 1;
  EXPECT_EQ(validate_request(request, config), std::nullopt);
  request.params.max_tokens = 5;
  EXPECT_EQ(validate_request(request, config), std::nullopt);
  request.params.max_tokens = 6;
  EXPECT_THAT(*validate_request(request, config),
              HasSubstr("need 4 KV blocks of 4 tokens on context rank 1, there are 3"));
  config.kv_blocks = 5;  // 3 and 2
  request.params.max_tokens = 1;
  EXPECT_THAT(*validate_request(request, config),
              HasSubstr("need 4 KV blocks of 4 tokens on context rank 0, there are 3"));
}

TEST(ValidateRequest, ChoicesThatGoOnMustBeInRangeAndOrder) {
  SchedulerConfig config;
  config.kv_blocks = 100, config.vocab_size = 10;
  Request request;
  request.prompt = {1};
  request.params.n = 2;
  request.choices = {{0, {1}}, {1, {}}};
  EXPECT_EQ(validate_request(request, config), std::nullopt);
  request.choices = {{1, {}}, {0, {}}};
  EXPECT_NE(validate_request(request, config), std::nullopt);
  request.choices = {{2, {}}};
  EXPECT_NE(validate_request(request, config), std::nullopt);
  request.choices = {{0, {11}}};
  EXPECT_THAT(*validate_request(request, config), HasSubstr("emitted token 0 is 11"));
  request.choices.clear();
  request.params.n = 0;
  EXPECT_THAT(*validate_request(request, config), HasSubstr("n is 0"));
}

}  // namespace
}  // namespace chorus

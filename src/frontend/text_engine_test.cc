#include "frontend/text_engine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <nlohmann/json.hpp>

#include "testing/text_testing.h"

namespace chorus {
namespace {

constexpr std::size_t long_prompt_bytes = 100'000;

SeedRule seed_of_length() {
  return [](std::span<const TokenId> prompt, const SamplingParams&) { return std::uint64_t{prompt.size()}; };
}

ModelConfig model_of(int max_model_len) {
  ModelConfig model = byte_model();
  model.max_position_embeddings = max_model_len;
  return model;
}

GenerationInput input_of(const std::string& prompt) {
  GenerationInput input;
  input.prompt = prompt;
  return input;
}

// A tokenizer that holds every long text until it is told to go on.
class SlowTokenizer final : public ByteTokenizer {
 public:
  Result<std::vector<std::int32_t>> encode(std::string_view text, bool special) const override {
    if (text.size() >= long_prompt_bytes) may_go_on.wait(false);
    return ByteTokenizer::encode(text, special);
  }
  void go_on() {
    may_go_on = true;
    may_go_on.notify_all();
  }
  std::atomic<bool> may_go_on = false;
};

class TextEngineTest : public testing::Test {
 protected:
  void poll_until_idle(TextEngine& engine) {
    while (engine.requests() > 0) ASSERT_TRUE(engine.poll(100, &deltas).ok());
  }

  std::string text_of(TextRequestId request, std::uint32_t choice = 0) const {
    std::string text;
    for (const TextDelta& delta : deltas) {
      if (delta.request == request && delta.choice == choice) text += delta.text;
    }
    return text;
  }

  EchoFleet fleet;
  EngineConfig config;
  std::vector<TextDelta> deltas;
};

TEST_F(TextEngineTest, GivesEachChoiceAsItComes) {
  TextEngine engine(fleet, std::make_shared<ByteTokenizer>(), config, model_of(64), seed_of_length());
  GenerationInput input = input_of("abc");
  input.options.params.n = 2;
  input.options.params.max_tokens = 3;
  input.return_prompt = true;
  const TextRequestId id = engine.add(std::move(input)).value();
  poll_until_idle(engine);
  ASSERT_EQ(deltas.size(), 7U);  // the prompt, and three tokens a choice
  ASSERT_NE(deltas[0].prompt, nullptr);
  EXPECT_EQ(deltas[0].prompt->text, "abc");
  EXPECT_EQ(deltas[0].prompt->token_ids, (std::vector<TokenId>{'a', 'b', 'c'}));
  EXPECT_FALSE(deltas[0].token);
  EXPECT_EQ(text_of(id, 0), "one");
  EXPECT_EQ(text_of(id, 1), "one");
  for (std::size_t i = 1; i < deltas.size(); ++i) {
    EXPECT_EQ(deltas[i].prompt_tokens, 3U);
    EXPECT_EQ(deltas[i].output_tokens, i);
    EXPECT_EQ(deltas[i].last, i == 6);
    EXPECT_EQ(deltas[i].finish, i == 3 || i == 6 ? FinishReason::length : FinishReason::none);
  }
  EXPECT_EQ(fleet.seeds, std::vector<std::uint64_t>{3});
}

TEST_F(TextEngineTest, ShowsNothingOfAStopString) {
  TextEngine engine(fleet, std::make_shared<ByteTokenizer>(), config, model_of(64), seed_of_length());
  GenerationInput input = input_of("a");
  input.options.stop = {"two t", "ow"};
  const TextRequestId id = engine.add(std::move(input)).value();
  while (engine.requests() > 0) {
    ASSERT_TRUE(engine.poll(100, &deltas).ok());
    ASSERT_TRUE(std::string("one ").starts_with(text_of(id))) << text_of(id);
  }
  EXPECT_EQ(text_of(id), "one ");
  EXPECT_EQ(deltas.back().stop_string, "two t");
  EXPECT_EQ(deltas.back().finish, FinishReason::stop);
  EXPECT_TRUE(deltas.back().last);
  EXPECT_EQ(fleet.aborted.size(), 1U);
}

TEST_F(TextEngineTest, ALongPromptDelaysNoStream) {
  const auto tokenizer = std::make_shared<SlowTokenizer>();
  TextEngine engine(fleet, tokenizer, config, model_of(1'000'000), seed_of_length());
  const TextRequestId first = engine.add(input_of("first")).value();
  engine.add(input_of(std::string(long_prompt_bytes, 'x'))).value();
  engine.add(input_of("third")).value();
  while (deltas.empty() || !deltas.back().last) ASSERT_TRUE(engine.poll(100, &deltas).ok());
  EXPECT_EQ(text_of(first), "one two thre");
  EXPECT_EQ(fleet.seeds, std::vector<std::uint64_t>{5});
  tokenizer->go_on();
  poll_until_idle(engine);
  EXPECT_EQ(fleet.seeds, (std::vector<std::uint64_t>{5, long_prompt_bytes, 5})) << "in the order of add()";
}

TEST_F(TextEngineTest, AnAbortedRequestSaysNothing) {
  const auto tokenizer = std::make_shared<SlowTokenizer>();
  TextEngine engine(fleet, tokenizer, config, model_of(1'000'000), seed_of_length());
  const TextRequestId running = engine.add(input_of("running")).value();
  const TextRequestId encoded = engine.add(input_of(std::string(long_prompt_bytes, 'x'))).value();
  const TextRequestId kept = engine.add(input_of("kept")).value();
  ASSERT_TRUE(engine.poll(0, &deltas).ok());
  deltas.clear();
  engine.abort(running);
  engine.abort(encoded);
  tokenizer->go_on();
  poll_until_idle(engine);
  EXPECT_EQ(text_of(kept), "one two thre");
  EXPECT_THAT(deltas, testing::Each(testing::Field(&TextDelta::request, kept)));
  EXPECT_EQ(fleet.seeds, (std::vector<std::uint64_t>{7, 4}));
  EXPECT_EQ(fleet.aborted.size(), 1U);
  engine.abort(kept);  // has ended
}

TEST_F(TextEngineTest, RefusesWhatItHasNoRoomFor) {
  TextEngineLimits limits;
  limits.requests_max = 2;
  TextEngine engine(fleet, std::make_shared<ByteTokenizer>(), config, model_of(64), seed_of_length(), limits);
  ASSERT_TRUE(engine.add(input_of("a")).ok());
  EXPECT_TRUE(engine.has_room());
  ASSERT_TRUE(engine.add(input_of("b")).ok());
  GenerationInput third = input_of("c");
  const auto refused = engine.add(std::move(third));
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::resource_exhausted);
  EXPECT_EQ(third.prompt, "c") << "nothing was taken";
  poll_until_idle(engine);
  EXPECT_TRUE(engine.add(std::move(third)).ok());
}

TEST_F(TextEngineTest, BoundsTheBytesThatWaitToBeEncoded) {
  const auto tokenizer = std::make_shared<SlowTokenizer>();
  TextEngineLimits limits;
  limits.unsubmitted_bytes_max = long_prompt_bytes;
  TextEngine engine(fleet, tokenizer, config, model_of(1'000'000), seed_of_length(), limits);
  ASSERT_TRUE(engine.add(input_of(std::string(long_prompt_bytes, 'x'))).ok());
  const auto refused = engine.add(input_of("b"));
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::resource_exhausted);
  tokenizer->go_on();
  poll_until_idle(engine);
  EXPECT_TRUE(engine.has_room());
}

TEST_F(TextEngineTest, SendsTheFleetNoMoreTokensThanItsLimit) {
  TextEngineLimits limits;
  limits.submitted_tokens_max = 10;
  TextEngine engine(fleet, std::make_shared<ByteTokenizer>(), config, model_of(64), seed_of_length(), limits);
  for (int i = 0; i < 4; ++i) ASSERT_TRUE(engine.add(input_of("sixsix")).ok());
  ASSERT_TRUE(engine.poll(0, &deltas).ok());
  EXPECT_EQ(fleet.submitted, 2U);
  poll_until_idle(engine);
  EXPECT_EQ(fleet.submitted, 4U);
}

TEST_F(TextEngineTest, AWrongRequestEndsAloneWithItsReason) {
  TextEngine engine(fleet, std::make_shared<ByteTokenizer>(), config, model_of(64), seed_of_length());
  GenerationInput input = input_of("");
  input.prompt_token_ids = {1, 256};
  input.return_prompt = true;
  const TextRequestId wrong = engine.add(std::move(input)).value();
  const TextRequestId right = engine.add(input_of("a")).value();
  poll_until_idle(engine);
  EXPECT_EQ(deltas[0].request, wrong);
  EXPECT_THAT(deltas[0].error.value_or(""), testing::HasSubstr("token 1 is id 256"));
  EXPECT_TRUE(deltas[0].last);
  EXPECT_EQ(deltas[0].prompt->token_ids, (std::vector<TokenId>{1, 256}));
  EXPECT_EQ(text_of(right), "one two thre");
}

TEST_F(TextEngineTest, AChatMayFillWhatTheModelHasLeft) {
  TextEngine engine(fleet, std::make_shared<ByteTokenizer>(), config, model_of(64), seed_of_length());
  GenerationInput open = input_of("0123456789");
  open.options.fills_context = true;
  GenerationInput bounded = open;
  ASSERT_TRUE(apply_sampling_option(&bounded.options, "max_tokens", 5).ok());
  engine.add(std::move(open)).value();
  engine.add(std::move(bounded)).value();
  poll_until_idle(engine);
  EXPECT_EQ(fleet.max_tokens, (std::vector<std::uint32_t>{54, 5}));
}

TEST_F(TextEngineTest, CutsAPromptToWhatIsKeptOfIt) {
  const struct {
    int kept;
    bool right, fills;
    std::uint32_t max_tokens;
    const char* expected;
  } cases[] = {{3, false, false, 5, "789"},    {3, true, false, 5, "012"},    {99, false, false, 5, "0123456789"},
               {-1, false, false, 60, "6789"}, {-1, true, false, 60, "0123"}, {-1, false, true, 60, "0123456789"},
               {-1, false, false, 100, "9"}};
  for (const auto& one : cases) {
    TextEngine engine(fleet, std::make_shared<ByteTokenizer>(), config, model_of(64), seed_of_length());
    GenerationInput input = input_of("0123456789");
    input.options.truncate_prompt_tokens = one.kept;
    input.options.truncates_right = one.right;
    input.options.fills_context = one.fills;
    input.options.params.max_tokens = one.max_tokens;
    input.options.cache_salt = one.expected;
    engine.add(std::move(input)).value();
    poll_until_idle(engine);
    EXPECT_EQ(std::string(fleet.prompts.back().begin(), fleet.prompts.back().end()), one.expected);
    EXPECT_EQ(fleet.cache_salts.back(), one.expected);
  }
}

TEST_F(TextEngineTest, BadWordsAndTheTokensOfLogprobsReachTheEngine) {
  TextEngine engine(fleet, std::make_shared<ByteTokenizer>(), config, model_of(64), seed_of_length());
  GenerationInput input = input_of("a");
  input.options.bad_words = {" no", "x"};
  input.options.params.logprob_token_ids = {5};
  input.options.params.logprobs = 3;
  engine.add(std::move(input)).value();
  GenerationInput wrong = input_of("a"), outside = wrong;
  wrong.options.bad_words = {"  "};
  outside.options.params.allowed_token_ids = {256};
  engine.add(std::move(wrong)).value();
  engine.add(std::move(outside)).value();
  poll_until_idle(engine);
  // With a space in front each would be one token longer: no second spelling is added.
  EXPECT_EQ(fleet.params.back().bad_words, (std::vector<std::vector<TokenId>>{{'n', 'o'}, {'x'}}));
  EXPECT_EQ(fleet.params.back().logprobs, 0U);
  std::vector<std::string> errors;
  for (const TextDelta& delta : deltas) {
    if (delta.error) errors.push_back(*delta.error);
  }
  ASSERT_EQ(errors.size(), 2U);
  EXPECT_THAT(errors[0], testing::HasSubstr("is no word"));
  EXPECT_THAT(errors[1], testing::HasSubstr("allowed_token_ids has id 256"));
}

}  // namespace
}  // namespace chorus

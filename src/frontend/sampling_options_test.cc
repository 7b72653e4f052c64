#include "frontend/sampling_options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace chorus {
namespace {

// Goal: each member of SamplingParams is set by the option of a user, and by one alone. Method: a value of each option
// that is no default; seed and bad_words go another way (GenerationOptions), as the text engine finishes it.
TEST(SamplingOptions, EachMemberIsSetByOneOption) {
  const Json values = Json::parse(R"({"max_tokens": 9, "min_tokens": 3, "temperature": 0.5, "top_p": 0.25, "top_k": 7,
      "min_p": 0.125, "presence_penalty": 1, "frequency_penalty": -1, "repetition_penalty": 1.5, "n": 4, "seed": 11,
      "stop_token_ids": [8], "ignore_eos": true, "logprobs": 2, "prompt_logprobs": 0, "logit_bias": {"4": 1.5},
      "allowed_token_ids": [5, 3, 5], "bad_words": ["x"], "logprob_token_ids": [9, 2, 9]})");
  std::vector<int> set_by(member_count<SamplingParams>(), 0);
  const SamplingParams defaults;
  for (const auto& [name, value] : values.items()) {
    GenerationOptions options;
    ASSERT_TRUE(apply_sampling_option(&options, name, value).ok()) << name;
    if (name == "seed") {
      EXPECT_EQ(options.seed, 11U);
      options.params.seed = *options.seed;  // as the front door does
    }
    for (const std::string& word : options.bad_words) options.params.bad_words.push_back({word.front()});
    if (name == "allowed_token_ids") {
      EXPECT_THAT(options.params.allowed_token_ids, testing::ElementsAre(3, 5));
    }
    if (name == "logprob_token_ids") {
      EXPECT_THAT(options.params.logprob_token_ids, testing::ElementsAre(9, 2));
    }
    const auto changed = SamplingParams::fields(options.params, [&](const auto&... given) {
      return SamplingParams::fields(
          defaults, [&](const auto&... standard) { return std::vector<int>{(given == standard ? 0 : 1)...}; });
    });
    EXPECT_EQ(std::ranges::count(changed, 1), 1) << name;
    std::ranges::transform(set_by, changed, set_by.begin(), std::plus());
  }
  EXPECT_THAT(set_by, testing::Each(1));
}

TEST(SamplingOptions, RefuseWhatIsNone) {
  const struct {
    const char* name;
    const char* value;
  } cases[] = {{"allowed_token_ids", "[]"},
               {"allowed_token_ids", "[-1]"},
               {"allowed_token_ids", "\"a\""},
               {"bad_words", "[\"\"]"},
               {"bad_words", "[5]"},
               {"bad_words", "{}"},
               {"logprob_token_ids", "[1.5]"},
               {"cache_salt", "\"\""},
               {"cache_salt", "\"a/b\""},
               {"cache_salt", "\"a\\u0000\""},
               {"cache_salt", "5"},
               {"truncate_prompt_tokens", "0"},
               {"truncate_prompt_tokens", "-2"},
               {"truncate_prompt_tokens", "\"all\""},
               {"truncation_side", "\"middle\""}};
  for (const auto& [name, value] : cases) {
    GenerationOptions options;
    const auto applied = apply_sampling_option(&options, name, Json::parse(value));
    ASSERT_FALSE(applied.ok()) << name << value;
    EXPECT_THAT(applied.error().message, testing::HasSubstr(name));
  }
}

TEST(SamplingOptions, OnTheCommandLine) {
  GenerationOptions options;
  for (const auto& [name, value] : {std::pair("bad-words", "one"),
                                    {"bad-words", "42"},
                                    {"allowed-token-ids", "7,5"},
                                    {"cache-salt", "12"},
                                    {"truncate-prompt-tokens", "-1"}}) {
    ASSERT_TRUE(apply_sampling_option_text(&options, name, value).ok()) << name;
  }
  EXPECT_THAT(options.bad_words, testing::ElementsAre("one", "42"));
  EXPECT_THAT(options.params.allowed_token_ids, testing::ElementsAre(5, 7));
  EXPECT_EQ(options.cache_salt, "12");
  EXPECT_EQ(options.truncate_prompt_tokens, -1);
}

}  // namespace
}  // namespace chorus

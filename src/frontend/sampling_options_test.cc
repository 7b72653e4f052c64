#include "frontend/sampling_options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace chorus {
namespace {

// Goal: each member of SamplingParams is set by the option of a user, and by one alone. Method: a value of each option
// that is no default; seed alone goes another way (GenerationOptions::seed).
TEST(SamplingOptions, EachMemberIsSetByOneOption) {
  const Json values = Json::parse(R"({"max_tokens": 9, "min_tokens": 3, "temperature": 0.5, "top_p": 0.25, "top_k": 7,
      "min_p": 0.125, "presence_penalty": 1, "frequency_penalty": -1, "repetition_penalty": 1.5, "n": 4, "seed": 11,
      "stop_token_ids": [8], "ignore_eos": true, "logprobs": 2, "prompt_logprobs": 0, "logit_bias": {"4": 1.5}})");
  std::vector<int> set_by(member_count<SamplingParams>(), 0);
  const SamplingParams defaults;
  for (const auto& [name, value] : values.items()) {
    GenerationOptions options;
    ASSERT_TRUE(apply_sampling_option(&options, name, value).ok()) << name;
    if (name == "seed") {
      EXPECT_EQ(options.seed, 11U);
      options.params.seed = *options.seed;  // as the front door does
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

}  // namespace
}  // namespace chorus

#include "kernels/sample.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <random>

#include "base/philox.h"
#include "kernels/isa.h"
#include "kernels/sample_passes.h"

namespace chorus {
namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr float nan = std::numeric_limits<float>::quiet_NaN();

// Logits with many ties: multiples of 1/4.
std::vector<float> tied_logits(std::size_t count, std::uint32_t seed, double spread = 2.0) {
  std::mt19937 random(seed);
  std::normal_distribution<double> distribution(0.0, spread);
  std::vector<float> logits(count);
  for (float& logit : logits) logit = static_cast<float>(std::round(distribution(random) * 4) / 4);
  return logits;
}

struct Candidate {
  std::int32_t token;
  double logit, probability;
};

// The rules told naively: whole sorts, double precision. The order is that of vLLM's sampler, whose documentation
// numbers its steps (vllm/v1/sample/sampler.py, class Sampler): 3 allowed_token_ids, 4 bad_words, 5a min_tokens (bans),
// 5b logit bias, 6a repetition, 6b frequency and 6c presence penalties, 7b temperature, 7c min_p, 7d top_k, then top_p.
std::vector<Candidate> naive_candidates(const SampleInput& input) {
  std::vector<double> logits(input.logits.begin(), input.logits.end());
  for (std::size_t id = 0; id < logits.size(); ++id) {
    const auto token = static_cast<std::int32_t>(id);
    const auto outputs = std::count(input.output.begin(), input.output.end(), token);
    const auto prompts = std::count(input.prompt.begin(), input.prompt.end(), token);
    double& logit = logits[id];
    const auto is_allowed = std::find(input.allowed.begin(), input.allowed.end(), token) != input.allowed.end();
    if (!input.allowed.empty() && !is_allowed) logit = -double{infinity};
    for (std::vector<std::int32_t> run : input.bad_words) {
      std::vector<std::int32_t> all(input.output.begin(), input.output.end());
      all.push_back(token);
      if (!run.empty() && run.size() <= all.size() && std::equal(run.rbegin(), run.rend(), all.rbegin()))
        logit = -double{infinity};
    }
    if (std::find(input.banned.begin(), input.banned.end(), token) != input.banned.end()) logit = -double{infinity};
    for (const auto& [biased, bias] : input.logit_bias) logit += biased == token ? double{bias} : 0.0;
    if (outputs + prompts > 0) logit = logit > 0 ? logit / input.repetition_penalty : logit * input.repetition_penalty;
    if (outputs > 0) logit -= input.frequency_penalty * static_cast<double>(outputs) + input.presence_penalty;
  }
  std::vector<Candidate> all;
  const double largest = *std::max_element(logits.begin(), logits.end());
  for (std::size_t id = 0; id < logits.size(); ++id) {
    const double scale = input.temperature > 0 ? input.temperature : 1;
    all.push_back({static_cast<std::int32_t>(id), logits[id], std::exp((logits[id] - largest) / scale)});
  }
  std::stable_sort(all.begin(), all.end(), [](const Candidate& a, const Candidate& b) { return a.logit > b.logit; });
  if (input.temperature <= 0) return {all.front()};
  std::erase_if(all, [&](const Candidate& c) { return c.probability < input.min_p || c.probability == 0; });
  if (input.top_k > 0 && static_cast<std::size_t>(input.top_k) < all.size())
    all.resize(static_cast<std::size_t>(input.top_k));
  double total = 0, mass = 0;
  for (const Candidate& c : all) total += c.probability;
  for (std::size_t i = 0; i < all.size(); ++i) {
    mass += all[i].probability;
    if (input.top_p < 1.0 && mass >= input.top_p * total) all.resize(i + 1);
  }
  std::sort(all.begin(), all.end(), [](const Candidate& a, const Candidate& b) { return a.token < b.token; });
  return all;
}

std::int32_t naive_sample(const SampleInput& input) {
  const std::vector<Candidate> candidates = naive_candidates(input);
  double total = 0, mass = 0;
  for (const Candidate& c : candidates) total += c.probability;
  const double target = total * philox_uniform(input.seed, input.choice, input.output.size());
  for (const Candidate& c : candidates) {
    mass += c.probability;
    if (mass > target) return c.token;
  }
  return candidates.back().token;
}

// Goal: the fast selection keeps and draws what the naive one does, for every combination of parameters. The kept sets
// hang on comparisons with top_p and min_p, which for random logits are never within rounding.
TEST(Sampler, AgreesWithNaiveSampler) {
  std::mt19937 random(11);
  const auto pick = [&](std::initializer_list<double> values) {
    return *(values.begin() + static_cast<std::ptrdiff_t>(random() % values.size()));
  };
  for (const std::int32_t vocabulary : {5, 64, 1000, 5003}) {
    Sampler sampler(Isa::scalar, vocabulary);
    for (std::uint32_t trial = 0; trial < 300; ++trial) {
      const auto logits = tied_logits(static_cast<std::size_t>(vocabulary), trial, pick({0.5, 2, 6, 30}));
      std::vector<std::int32_t> prompt(20), output(trial % 30), banned(trial % 3);
      for (auto* tokens : {&prompt, &output, &banned}) {
        for (auto& token : *tokens)
          token = static_cast<std::int32_t>(random() % static_cast<std::uint32_t>(vocabulary));
      }
      const std::vector<std::pair<std::int32_t, float>> bias = {{2, 1.5F}, {4, -3.0F}};
      SampleInput input;
      input.logits = logits;
      input.temperature = pick({0, 0.31, 1, 1.7});
      input.top_p = pick({0.1, 0.53, 0.9, 0.999, 1});
      input.top_k = static_cast<std::int32_t>(pick({0, 1, 3, 40, 700}));
      input.min_p = pick({0, 0.011, 0.3});
      input.repetition_penalty = pick({1, 1.25, 0.5});
      input.frequency_penalty = pick({0, 0.25, -0.5});
      input.presence_penalty = pick({0, 0.5});
      if (trial % 2 == 0) input.logit_bias = bias;
      input.prompt = prompt, input.output = output;
      if (vocabulary > 5) input.banned = banned;
      // At least 20 of them stay, or all but the few of the runs.
      std::vector<std::int32_t> allowed(static_cast<std::size_t>(std::min(vocabulary, 60)));
      std::iota(allowed.begin(), allowed.end(), static_cast<std::int32_t>(trial % 3));
      if (vocabulary > 5 && trial % 4 == 0) input.allowed = allowed;
      std::vector<std::vector<std::int32_t>> bad = {{7}, {vocabulary + 1}, {}, std::vector<std::int32_t>(40, 3)};
      if (!output.empty()) bad.push_back({output.back(), 9});
      if (output.size() > 1) bad.push_back({output[output.size() - 2], output.back(), 11});
      if (vocabulary > 5 && trial % 5 < 2) input.bad_words = bad;
      input.seed = trial, input.choice = trial % 3;
      const SampleOutput got = sampler.sample(input);
      ASSERT_FALSE(got.not_a_number);
      ASSERT_EQ(got.token, naive_sample(input))
          << "vocabulary " << vocabulary << " trial " << trial << " temperature " << input.temperature << " top_p "
          << input.top_p << " top_k " << input.top_k << " min_p " << input.min_p;
    }
  }
}

// Goal: tokens come with the probabilities of the kept set. Method: chi-square at a fixed seed; 27.9 is the 0.999
// quantile for 9 degrees of freedom.
TEST(Sampler, DrawsTheDistribution) {
  Sampler sampler(Isa::scalar, 40);
  std::vector<float> logits(40, -5.0F);
  for (std::size_t i = 0; i < 10; ++i) logits[i * 4] = static_cast<float>(i) * 0.3F;
  SampleInput input;
  input.logits = logits;
  input.top_k = 10;
  input.temperature = 1.3;
  double total = 0;
  std::map<std::int32_t, double> expected;
  for (const Candidate& c : naive_candidates(input)) total += expected[c.token] = c.probability;
  ASSERT_EQ(expected.size(), 10U);
  std::map<std::int32_t, int> seen;
  constexpr int draws = 20000;
  for (int seed = 0; seed < draws; ++seed) {
    input.seed = static_cast<std::uint64_t>(seed) * 7919;
    ++seen[sampler.sample(input).token];
  }
  ASSERT_EQ(seen.size(), 10U);
  double chi_square = 0;
  for (const auto& [token, probability] : expected) {
    const double mean = draws * probability / total;
    chi_square += std::pow(seen[token] - mean, 2) / mean;
  }
  EXPECT_LT(chi_square, 27.9);
}

TEST(Sampler, TopOneIsGreedyAndTiesGoToTheLowestToken) {
  Sampler sampler(Isa::scalar, 3000);
  for (std::uint32_t seed = 0; seed < 50; ++seed) {
    const auto logits = tied_logits(3000, seed, 1.0);
    SampleInput greedy, top_one, tiny_top_p;
    greedy.logits = top_one.logits = tiny_top_p.logits = logits;
    greedy.temperature = 0;
    top_one.top_k = 1;
    tiny_top_p.top_p = 1e-9;
    const auto expected = std::max_element(logits.begin(), logits.end()) - logits.begin();
    EXPECT_EQ(sampler.sample(greedy).token, expected);
    EXPECT_EQ(sampler.sample(top_one).token, expected);
    EXPECT_EQ(sampler.sample(tiny_top_p).token, expected);
  }
}

// Goal: the penalties see the biased logit: token 1 has (-1 + 3.4) / 2 = 1.2, less than token 0's 1.25; penalised first
// it would have -1 * 2 + 3.4 = 1.4.
TEST(Sampler, ABiasComesBeforeThePenalties) {
  Sampler sampler(Isa::scalar, 3);
  const std::vector<float> logits = {1.25F, -1.0F, 0.0F};
  const std::vector<std::int32_t> output = {1};
  const std::vector<std::pair<std::int32_t, float>> bias = {{1, 3.4F}};
  SampleInput input;
  input.logits = logits;
  input.temperature = 0;
  input.repetition_penalty = 2;
  input.output = output;
  input.logit_bias = bias;
  EXPECT_EQ(sampler.sample(input).token, 0);
}

// Goal: nothing lifts a ban: neither a bias nor penalties that raise logits.
TEST(Sampler, BannedTokensAreNeverDrawn) {
  Sampler sampler(Isa::scalar, 8);
  const std::vector<float> logits(8, 1.0F);
  const std::vector<std::int32_t> banned = {0, 1, 2, 4, 5, 6, 7, 99, -1};
  const std::vector<std::int32_t> output = {0, 1, 7};
  const std::vector<std::pair<std::int32_t, float>> bias = {{0, 100.0F}, {2, 100.0F}};
  SampleInput input;
  input.logits = logits;
  input.banned = banned;
  for (std::uint64_t seed = 0; seed < 100; ++seed) {
    input.seed = seed;
    EXPECT_EQ(sampler.sample(input).token, 3);
    SampleInput raised = input;
    raised.output = output;
    raised.logit_bias = bias;
    raised.repetition_penalty = 0.5;
    raised.frequency_penalty = raised.presence_penalty = -2;
    EXPECT_EQ(sampler.sample(raised).token, 3);
  }
}

// Goal: a draw is a function of seed, choice and position, and of nothing that the sampler did before.
TEST(Sampler, DrawsDependOnTheRequestAlone) {
  Sampler used(Isa::scalar, 500), fresh(Isa::scalar, 500);
  const auto logits = tied_logits(500, 1);
  std::vector<std::int32_t> output, other;
  SampleInput input;
  input.logits = logits;
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    input.seed = seed;
    input.frequency_penalty = seed % 2 == 0 ? 0.3 : 0.0;
    input.output = output;
    const std::int32_t first = used.sample(input).token;
    input.choice = 1;
    (void)used.sample(input);
    input.choice = 0;
    EXPECT_EQ(fresh.sample(input).token, first);
    output.push_back(first);
  }
}

TEST(Sampler, RowsThatAreNoNumbersAreReported) {
  Sampler sampler(Isa::scalar, 70);
  for (const double temperature : {0.0, 1.0}) {
    for (const float bad : {nan, -nan, infinity}) {
      for (const std::size_t place : {std::size_t{0}, std::size_t{69}}) {
        std::vector<float> logits(70, 1.0F);
        logits[place] = bad;
        const std::vector<std::int32_t> banned = {static_cast<std::int32_t>(place)};
        SampleInput input;
        input.logits = logits;
        input.temperature = temperature;
        EXPECT_TRUE(sampler.sample(input).not_a_number);
        input.banned = banned;
        EXPECT_TRUE(sampler.sample(input).not_a_number) << "a ban must not hide it";
      }
    }
    SampleInput input;
    const std::vector<float> nothing(70, -infinity);
    input.logits = nothing;
    input.temperature = temperature;
    EXPECT_TRUE(sampler.sample(input).not_a_number);
    std::vector<float> one(70, -infinity);
    one[42] = -3.0e38F;
    input.logits = one;
    EXPECT_EQ(sampler.sample(input).token, 42);
  }
}

// Goal: wider vectors change no bit, so that a mixed cluster draws the same tokens.
TEST(Sampler, PassesAgreeInEveryBitOnAllInstructionSets) {
  std::mt19937 random(5);
  std::normal_distribution<float> distribution(0.0F, 9.0F);
  std::vector<float> logits(4999);
  for (float& logit : logits) logit = distribution(random);
  logits[7] = -infinity, logits[8] = -1e30F, logits[9] = -0.0F;
  struct Bits {
    std::vector<float> weights = std::vector<float>(4999);
    std::vector<std::int32_t> blocks = std::vector<std::int32_t>(79);
    std::int32_t largest = 0;
    bool operator==(const Bits&) const = default;
  };
  const auto run = [&](const SamplePasses& passes) {
    Bits bits;
    bits.largest = passes.scan(logits.data(), logits.size(), bits.blocks.data()).largest;
    const float largest = *std::max_element(logits.begin(), logits.end());
    passes.weigh(logits.data(), logits.size(), largest, 0.83F, 1e-20F, bits.weights.data());
    return bits;
  };
  const Bits expected = run(sample_passes_scalar());
  for (std::size_t i = 0; i < logits.size(); ++i) {
    const double exact =
        std::exp((double{logits[i]} - double{*std::max_element(logits.begin(), logits.end())}) / double{0.83F});
    // The quotient, up to 50, is rounded twice: relative error 50 * 2 / 2^24 at most. Near min_p either answer is
    // right.
    if (exact > 1.1e-20) {
      ASSERT_NEAR(double{expected.weights[i]}, exact, exact * 7e-6) << logits[i];
    } else if (exact < 0.9e-20) {
      ASSERT_EQ(expected.weights[i], 0.0F);
    }
  }
  for (const Isa isa : available_isas()) {
    if (isa == Isa::scalar) continue;
    EXPECT_TRUE(run(isa == Isa::avx2_f32 ? sample_passes_avx2() : sample_passes_avx512()) == expected) << name_of(isa);
  }
}

// Goal: the numerics profile's instruction set is the one that is used, also where the machine has a better one.
TEST(Sampler, TakesThePassesOfItsInstructionSet) {
  EXPECT_EQ(&sample_passes_for(Isa::scalar), &sample_passes_scalar());
  EXPECT_EQ(&sample_passes_for(Isa::avx2_f32), &sample_passes_avx2());
  EXPECT_EQ(&sample_passes_for(Isa::avx512_bf16), &sample_passes_avx512());
  EXPECT_EQ(&sample_passes_for(Isa::amx_bf16), &sample_passes_avx512());
}

// Goal: the tokens and the logprobs too are the same bits in every instruction set.
TEST(Sampler, DrawsTheSameOnAllInstructionSets) {
  constexpr std::int32_t vocabulary = 3001;
  const std::vector<std::int32_t> output = {3, 9, 9, 2000};
  const std::vector<std::pair<std::int32_t, float>> bias = {{9, 2.5F}, {17, -4.0F}};
  const auto run = [&](Isa isa) {
    Sampler sampler(isa, vocabulary);
    std::vector<std::pair<std::int32_t, float>> drawn;
    std::vector<SampledLogprob> top;
    for (std::uint32_t seed = 0; seed < 100; ++seed) {
      const auto logits = tied_logits(vocabulary, seed);
      SampleInput input;
      input.logits = logits;
      input.seed = seed;
      input.top_p = 0.95;
      input.top_k = seed % 2 == 0 ? 50 : 0;
      input.repetition_penalty = 1.3;
      input.output = output;
      input.logit_bias = bias;
      const std::int32_t token = sampler.sample(input).token;
      drawn.emplace_back(token, sampler.logprobs(logits, token, 2, &top));
      for (const SampledLogprob& entry : top) drawn.emplace_back(entry.token, entry.logprob);
    }
    return drawn;
  };
  const auto expected = run(Isa::scalar);
  for (const Isa isa : available_isas()) EXPECT_EQ(run(isa), expected) << name_of(isa);
}

TEST(Sampler, LogprobsAreTheLogOfTheSoftmax) {
  for (const std::int32_t vocabulary : {7, 500, 4001}) {
    Sampler sampler(Isa::scalar, vocabulary);
    const auto logits = tied_logits(static_cast<std::size_t>(vocabulary), 3);
    SampleInput input;
    input.logits = logits;
    double sum = 0;
    for (const float logit : logits) sum += std::exp(double{logit});
    std::vector<std::int32_t> order(logits.size());
    std::iota(order.begin(), order.end(), 0);
    const auto logit_of = [&](std::int32_t id) { return logits[static_cast<std::size_t>(id)]; };
    std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return logit_of(a) > logit_of(b); });
    for (const std::uint32_t top : {0U, 1U, 5U, 20U, 5000U}) {
      std::vector<SampledLogprob> best(3);
      EXPECT_NEAR(double{sampler.logprobs(logits, 6, top, &best)}, double{logit_of(6)} - std::log(sum), 2e-6);
      ASSERT_EQ(best.size(), std::min<std::size_t>(top, logits.size()));
      for (std::size_t i = 0; i < best.size(); ++i) {
        ASSERT_EQ(best[i].token, order[i]);
        ASSERT_NEAR(double{best[i].logprob}, double{logit_of(order[i])} - std::log(sum), 2e-6);
      }
    }
  }
}

TEST(Sampler, LogprobsOfWhatIsAskedForInItsOrder) {
  Sampler sampler(Isa::scalar, 500);
  const auto logits = tied_logits(500, 3);
  std::vector<SampledLogprob> all, wanted;
  const float chosen = sampler.logprobs(logits, 6, 500, &all);
  EXPECT_EQ(sampler.logprobs_of(logits, 6, std::vector<std::int32_t>{499, 3, 500, -1, 6}, &wanted), chosen);
  ASSERT_EQ(wanted.size(), 3U);
  EXPECT_EQ(wanted[0].token, 499);
  EXPECT_EQ(wanted[2].token, 6);
  for (const SampledLogprob& one : wanted) {
    const auto at = std::find_if(all.begin(), all.end(), [&](const auto& other) { return other.token == one.token; });
    EXPECT_EQ(one.logprob, at->logprob);
  }
}

TEST(Sampler, ARowWithoutAnAllowedTokenIsReported) {
  Sampler sampler(Isa::scalar, 8);
  const std::vector<float> logits(8, 1.0F);
  const std::vector<std::int32_t> allowed = {3}, banned = {3};
  SampleInput input;
  input.logits = logits;
  input.allowed = allowed;
  EXPECT_EQ(sampler.sample(input).token, 3);
  input.banned = banned;
  EXPECT_TRUE(sampler.sample(input).not_a_number);
}

}  // namespace
}  // namespace chorus

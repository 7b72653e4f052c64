#include "world.h"

#include <gtest/gtest.h>

namespace chorus::sim {
namespace {

WorldConfig small(std::uint64_t seed) {
  WorldConfig config;
  config.seed = seed;
  config.requests = 300;
  return config;
}

void expect_clean(const Outcome& outcome, const std::string& what) {
  EXPECT_EQ(outcome.violations.total(), 0u) << what;
  for (const std::string& violation : outcome.violations.first) ADD_FAILURE() << what << ": " << violation;
}

TEST(World, WithoutFaultsEveryRequestEndsAsTheOracleSays) {
  for (std::uint64_t seed = 1; seed <= 10; ++seed) {
    WorldConfig config = small(seed);
    config.faults = false;
    const Outcome outcome = run_world(config);
    expect_clean(outcome, fmt::format("seed {}", seed));
    EXPECT_EQ(outcome.totals.requests, 300u);
    EXPECT_EQ(outcome.totals.deaths, 0u);
  }
}

// Goal: the simulated faults are those that are to be survived. Method: totals of a few worlds.
TEST(World, FaultsOfEveryKindHappen) {
  Totals totals;
  for (std::uint64_t seed = 1; seed <= 10; ++seed) {
    const Outcome outcome = run_world(small(seed));
    expect_clean(outcome, fmt::format("seed {}", seed));
    totals.add(outcome.totals);
  }
  EXPECT_EQ(totals.requests, 3000u);
  EXPECT_GT(totals.deaths, 30u);
  EXPECT_GT(totals.zombies, 0u);
  EXPECT_GT(totals.all_dead, 0u);
  EXPECT_GT(totals.resubmissions, 100u);
  EXPECT_GT(totals.dropped, 0u);
  EXPECT_GT(totals.preemptions, 100u);
  EXPECT_GT(totals.cache_hits, 100u);
  EXPECT_GT(totals.aborts, 0u);
  EXPECT_EQ(totals.most_in_flight, 4u);
  EXPECT_GT(totals.pooled, 3u);
}

TEST(World, TheSameSeedGivesTheSameDecisions) {
  const Outcome first = run_world(small(7));
  const Outcome second = run_world(small(7));
  EXPECT_EQ(first.trace_digest, second.trace_digest);
  EXPECT_NE(first.trace_digest, run_world(small(8)).trace_digest);
}

// The promise: what clients get is a function of their requests, not of replicas, schedulers, caches or deaths.
// Requests whose client hangs up are cut at a time and so left out.
TEST(World, OutputsDoNotDependOnTheClusterNorOnItsFaults) {
  WorldConfig calm = small(11);
  calm.faults = false;
  calm.replicas = 1;
  const Outcome reference = run_world(calm);
  for (std::uint64_t cluster = 1; cluster <= 5; ++cluster) {
    WorldConfig config = small(11);
    config.cluster_seed = cluster;
    const Outcome outcome = run_world(config);
    EXPECT_NE(outcome.trace_digest, reference.trace_digest);
    EXPECT_EQ(outcome.output_digest, reference.output_digest) << "cluster seed " << cluster;
  }
}

struct Expectation {
  Sabotage sabotage;
  std::uint64_t Violations::*found_as;
};

class SabotageTest : public ::testing::TestWithParam<Expectation> {};

// A deliberate bug must be found, and as what it is.
TEST_P(SabotageTest, IsFound) {
  Violations sum;
  for (std::uint64_t seed = 1; seed <= 5; ++seed) {
    WorldConfig config = small(seed);
    config.sabotage = GetParam().sabotage;
    const Outcome outcome = run_world(config);
    sum.*GetParam().found_as += outcome.violations.*GetParam().found_as;
  }
  EXPECT_GT(sum.*GetParam().found_as, 0u);
}

INSTANTIATE_TEST_SUITE_P(All, SabotageTest,
                         ::testing::Values(Expectation{Sabotage::forget_last_token, &Violations::repeated},
                                           Expectation{Sabotage::ignore_epochs, &Violations::other},
                                           Expectation{Sabotage::other_seed, &Violations::changed},
                                           Expectation{Sabotage::corrupt_token, &Violations::changed},
                                           Expectation{Sabotage::lose_finish, &Violations::lost}));

}  // namespace
}  // namespace chorus::sim

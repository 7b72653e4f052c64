#include "sched/scheduler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "testing/request_testing.h"
#include "testing/sched_testing.h"

namespace chorus {
namespace {

using testing::HasSubstr;
using testing::SizeIs;

SchedulerConfig small_config() {
  SchedulerConfig config;
  config.max_num_seqs = 8, config.max_num_batched_tokens = 16, config.max_model_len = 64;
  config.block_size = 4, config.kv_blocks = 32, config.vocab_size = 1000;
  return config;
}

Request request_of(std::uint64_t number, std::size_t prompt_length, std::uint32_t max_tokens, std::uint32_t n = 1) {
  Request request;
  request.id = {0, number};
  for (std::size_t i = 0; i < prompt_length; ++i) request.prompt.push_back(static_cast<TokenId>(100 * number + i));
  request.params.max_tokens = max_tokens;
  request.params.n = n;
  return request;
}

TEST(Scheduler, FailsWhatItCannotServeByOneEventAChoice) {
  ToyEngine engine(small_config());
  engine.scheduler().add(request_of(1, 65, 1, 2));
  EXPECT_TRUE(engine.scheduler().has_work());
  engine.step();
  EXPECT_EQ(engine.plan().rows, 0);
  ASSERT_THAT(engine.events(), SizeIs(2));
  EXPECT_EQ(engine.events()[1].choice, 1U);
  EXPECT_EQ(engine.events()[1].finish, FinishReason::error);
  EXPECT_EQ(engine.events()[1].error,
            "prompt has 65 tokens, longer than max_model_len 64: shorten it or raise --max-model-len");
  EXPECT_FALSE(engine.scheduler().has_work());
  engine.scheduler().add(request_of(1, 65, 1, 2));
  engine.scheduler().abort_choice(1_id, 0);
  engine.scheduler().abort(1_id);
  EXPECT_FALSE(engine.scheduler().has_work()) << "an aborted request is silent";
}

// The time from the step that took it to the one that gave its token, and what the cache had: once a choice.
TEST(Scheduler, TellsOfThePrefillWithTheFirstToken) {
  ToyEngine engine(small_config());
  const auto first_report = [&](std::uint64_t number) {
    Request request = request_of(1, 20, 2);
    request.id = {0, number};
    engine.scheduler().add(request);
    std::vector<PrefillReport> reports;
    while (engine.scheduler().has_work()) {
      ASSERT_TRUE(engine.begin());
      engine.now += 5'000'000;
      engine.end();
      for (const TokenEvent& event : engine.events()) {
        if (event.prefill) reports.push_back(*event.prefill);
      }
    }
    ASSERT_THAT(reports, SizeIs(1));
    // 16 rows a step: the whole prompt takes two, what is left behind 16 cached tokens takes one.
    const bool cached = number > 1;
    EXPECT_EQ(reports[0], (PrefillReport{cached ? 16U : 0U, cached ? 5'000U : 10'000U}));
  };
  first_report(1);
  first_report(2);
}

// What ran when the cache was reset goes on with its own blocks, and nobody finds what it had or computes later.
TEST(Scheduler, FindsNothingOfBeforeAReset) {
  ToyEngine engine(small_config());
  engine.scheduler().add(request_of(1, 20, 1));
  engine.run();
  Request again = request_of(1, 20, 12);
  again.id = {0, 2};
  engine.scheduler().add(again);
  engine.step();
  EXPECT_EQ(engine.scheduler().stats().prefix_cache_hits, 16U);
  engine.scheduler().reset_prefix_cache();
  engine.scheduler().check_invariants();
  engine.run();
  again.id = {0, 3};
  engine.scheduler().add(again);
  engine.run();
  EXPECT_EQ(engine.scheduler().stats().prefix_cache_hits, 16U);
  EXPECT_EQ(engine.scheduler().stats().prefix_cache_resets, 1U);
  EXPECT_EQ(engine.outcomes().at({2_id, 0}), engine.outcomes().at({3_id, 0}));
  again.id = {0, 4};
  engine.scheduler().add(again);
  engine.run();
  EXPECT_GT(engine.scheduler().stats().prefix_cache_hits, 16U) << "what was computed since is found";
}

// Each is told once, with the choice's next token; together they are all that there were.
TEST(Scheduler, TellsOfPreemptions) {
  SchedulerConfig config = small_config();
  config.kv_blocks = 8;
  ToyEngine engine(config);
  for (std::uint64_t number = 1; number <= 3; ++number) engine.scheduler().add(request_of(number, 6, 20));
  std::uint64_t told = 0;
  std::set<std::uint64_t> whose;
  while (engine.scheduler().has_work()) {
    engine.step();
    for (const TokenEvent& event : engine.events()) {
      if (!event.preemptions) continue;
      EXPECT_GT(*event.preemptions, 0U);
      told += *event.preemptions;
      whose.insert(event.request.number);
    }
  }
  EXPECT_GT(told, 0U);
  EXPECT_EQ(told, engine.scheduler().stats().preemptions);
  EXPECT_FALSE(whose.contains(1)) << "the first is never preempted";
}

TEST(Scheduler, ChoicesShareTheFullPromptBlocksWithTheCacheOff) {
  SchedulerConfig config = small_config();
  config.enable_prefix_caching = false;
  ToyEngine engine(config);
  engine.scheduler().add(request_of(1, 10, 6, 3));
  engine.step();
  engine.step();
  EXPECT_EQ(engine.scheduler().stats().running, 3U);
  // 2 shared blocks, and one more for each of three.
  EXPECT_EQ(engine.scheduler().stats().kv_blocks_free, 32U - 5U);
  engine.run();
  EXPECT_EQ(engine.outcomes().size(), 3U);
  EXPECT_NE((engine.outcomes()[{1_id, 0}].tokens), (engine.outcomes()[{1_id, 1}].tokens));
}

TEST(Scheduler, NotANumberEndsThatChoiceAlone) {
  ToyEngine engine(small_config());
  engine.scheduler().add(request_of(1, 5, 4, 2));
  engine.scheduler().add(request_of(2, 5, 4));
  engine.step();
  engine.step();
  engine.begin();
  ASSERT_THAT(engine.plan().sequences, SizeIs(3));
  engine.result().sequences[0].not_a_number = true;
  engine.end();
  const TokenEvent failed = engine.events()[0];
  EXPECT_EQ(failed.finish, FinishReason::error);
  EXPECT_FALSE(failed.token.has_value());
  EXPECT_THAT(failed.error, HasSubstr("no finite logits at output position 2 of choice 0"));
  engine.run();
  EXPECT_EQ((engine.outcomes()[{1_id, 0}].tokens.size()), 2U);
  EXPECT_EQ((engine.outcomes()[{1_id, 1}].finish), FinishReason::length);
  EXPECT_EQ((engine.outcomes()[{2_id, 0}].finish), FinishReason::length);
}

TEST(Scheduler, PromptLogprobsAreToldOnceAlsoWhenTheLeaderIsAbortedInTheMiddle) {
  for (const bool abort : {false, true}) {
    ToyEngine engine(small_config());
    engine.scheduler().add(request_of(7, 40, 3));  // the same prompt: in the cache afterwards
    engine.run();
    Request request = request_of(7, 40, 3, 2);
    request.params.prompt_logprobs = 0;
    engine.outcomes().clear();
    engine.scheduler().add(request);
    engine.step();
    EXPECT_EQ(engine.plan().sequences[0].start, 0) << "every row is computed";
    if (abort) engine.scheduler().abort_choice(7_id, 0);
    engine.run();
    EXPECT_THAT((engine.outcomes()[{7_id, abort ? 1 : 0}].prompt_logprobs), SizeIs(39));
    EXPECT_THAT((engine.outcomes()[{7_id, abort ? 0 : 1}].prompt_logprobs), SizeIs(0));
  }
}

TEST(Scheduler, PromptLogprobsAreNotComputedAgainOnResubmission) {
  ToyEngine engine(small_config());
  Request request = request_of(1, 10, 5);
  request.params.prompt_logprobs = 0;
  request.skip_prompt_logprobs = true;
  engine.scheduler().add(request);
  engine.step();
  EXPECT_FALSE(engine.plan().sequences[0].prompt_logprobs);
  engine.run();
  EXPECT_THAT((engine.outcomes()[{1_id, 0}].prompt_logprobs), SizeIs(0));
}

TEST(Scheduler, AResumedChoiceGoesOnWhereItWas) {
  ToyEngine engine(small_config());
  Request whole = request_of(1, 6, 8, 2);
  whole.params.min_tokens = 4;
  engine.scheduler().add(whole);
  engine.run();
  const Outcomes expected = engine.outcomes();
  for (std::size_t cut = 0; cut <= 8; ++cut) {
    ToyEngine other(small_config());
    Request rest = whole;
    for (std::uint32_t choice = 0; choice < 2; ++choice) {
      const auto& tokens = expected.at({1_id, choice}).tokens;
      rest.choices.push_back({choice, {tokens.begin(), tokens.begin() + static_cast<std::ptrdiff_t>(cut)}});
      other.outcomes()[{1_id, choice}].tokens = rest.choices.back().emitted;
    }
    other.scheduler().add(rest);
    other.run();
    EXPECT_EQ(other.outcomes(), expected) << "cut at " << cut;
  }
}

TEST(Scheduler, BansEosAndStopIdsBelowMinTokens) {
  SchedulerConfig config = small_config();
  config.eos_token_ids = {3};
  ToyEngine engine(config);
  Request request = request_of(1, 4, 6);
  request.params.min_tokens = 2;
  request.params.stop_token_ids = {1};
  engine.scheduler().add(request);
  std::vector<std::size_t> banned;
  while (engine.scheduler().has_work()) {
    engine.step();
    banned.push_back(engine.plan().sequences[0].banned.size());
  }
  ASSERT_GE(banned.size(), 3U);
  EXPECT_EQ(banned[0], 2U);
  EXPECT_EQ(banned[1], 2U);
  EXPECT_EQ(banned[2], 0U);
}

TEST(Scheduler, TellsARefusalWithTheOldestPlanInFlight) {
  SchedulerConfig config = small_config();
  config.plans_in_flight_max = 2;
  ToyEngine engine(config);
  engine.scheduler().add(request_of(1, 5, 2));
  EXPECT_TRUE(engine.begin());
  engine.scheduler().add(request_of(2, 65, 1));
  EXPECT_FALSE(engine.begin()) << "all is in flight";
  EXPECT_EQ(engine.scheduler().plans_in_flight(), 1);
  engine.end();
  ASSERT_THAT(engine.events(), SizeIs(2));
  EXPECT_EQ(engine.events()[0].finish, FinishReason::error);
  EXPECT_EQ(engine.events()[1].request, 1_id);
  engine.run();
}

// The id of a request that was aborted in flight can be used again at once; the old result is not taken for the new
// one's.
TEST(Scheduler, IgnoresResultsOfAnAbortedRequestWhoseIdCameBack) {
  SchedulerConfig config = small_config();
  config.plans_in_flight_max = 2;
  ToyEngine engine(config);
  engine.scheduler().add(request_of(1, 5, 3));
  EXPECT_TRUE(engine.begin());
  engine.result().sequences[0].token = 999;
  engine.scheduler().abort(1_id);
  engine.scheduler().add(request_of(1, 5, 3));
  engine.run();
  ToyEngine fresh(small_config());
  fresh.scheduler().add(request_of(1, 5, 3));
  fresh.run();
  EXPECT_EQ(engine.outcomes(), fresh.outcomes());
}

TEST(Scheduler, CountsTokensAndCacheHits) {
  ToyEngine engine(small_config());
  engine.scheduler().add(request_of(1, 9, 3));
  engine.run();
  engine.scheduler().add(request_of(1, 9, 3));
  engine.outcomes().clear();
  engine.run();
  const SchedulerStats stats = engine.scheduler().stats();
  EXPECT_EQ(stats.prefix_cache_queries, 18U);
  EXPECT_EQ(stats.prefix_cache_hits, 8U);
  EXPECT_EQ(stats.prompt_tokens, 10U);
  EXPECT_EQ(stats.output_tokens, 6U);
  EXPECT_EQ(stats.kv_blocks_total, 32U);
}

TEST(Scheduler, SharesCachedPrefixesWithTheSameSaltAlone) {
  ToyEngine engine(small_config());
  std::vector<std::uint64_t> hits;
  for (const char* const salt : {"", "a", "a", "b", ""}) {
    Request request = request_of(1, 9, 3);
    request.cache_salt = salt;
    engine.scheduler().add(request);
    engine.run();
    engine.outcomes().clear();
    hits.push_back(engine.scheduler().stats().prefix_cache_hits);
  }
  EXPECT_THAT(hits, testing::ElementsAre(0U, 0U, 8U, 8U, 16U));
}

SchedulerConfig windowed_config(std::int32_t tables) {
  SchedulerConfig config = small_config();
  config.max_num_batched_tokens = 8, config.kv_window = {tables, 6};
  return config;
}

// Goal: what a windowed table holds does not grow with the sequence.
TEST(Scheduler, AWindowedTableHoldsItsWindow) {
  ToyEngine engine(windowed_config(2));
  engine.scheduler().add(request_of(1, 24, 40));
  std::int64_t most = 0;
  while (engine.scheduler().has_work()) {
    engine.step();
    const SchedulerStats stats = engine.scheduler().stats();
    most = std::max(most, static_cast<std::int64_t>(stats.kv_blocks_total - stats.kv_blocks_free));
    // While it decodes: one row, the 5 keys before it and the 4 positions that are kept longer are on 3 or 4 blocks.
    if (stats.output_tokens > 4 && stats.running > 0) {
      const SequencePlan& plan = engine.plan().sequences.at(0);
      EXPECT_LE(stats.kv_blocks_total - stats.kv_blocks_free, plan.block_table.size() + 2 * 4) << plan.start;
    }
  }
  EXPECT_LE(most, kv_shape(windowed_config(2)).needed(16, 0));
  EXPECT_GT(most, 16);
}

// Goal: a prefix is found as long as every table still has what the next row sees, and not otherwise.
TEST(Scheduler, FindsAPrefixWhoseWindowIsStillThere) {
  SchedulerConfig config = windowed_config(1);
  ToyEngine engine(config);
  const auto hits_of = [&](const Request& request) {
    const std::uint64_t before = engine.scheduler().stats().prefix_cache_hits;
    engine.scheduler().add(request);
    engine.run();
    engine.outcomes().clear();
    return engine.scheduler().stats().prefix_cache_hits - before;
  };
  EXPECT_EQ(hits_of(request_of(1, 25, 3)), 0U);
  EXPECT_EQ(hits_of(request_of(1, 25, 3)), 24U);
  EXPECT_EQ(hits_of(request_of(1, 13, 3)), 12U) << "blocks that were given back are found until they are handed out";
  // Takes most blocks, those unused for longest first.
  hits_of(request_of(2, 40, 20));
  const std::uint64_t left = hits_of(request_of(1, 25, 3));
  EXPECT_LT(left, 24U);
  EXPECT_EQ(hits_of(request_of(1, 25, 3)), 24U);
}

TEST(Scheduler, ChoicesShareWindowsWithTheCacheOff) {
  SchedulerConfig config = windowed_config(1);
  config.enable_prefix_caching = false;
  ToyEngine engine(config);
  engine.scheduler().add(request_of(1, 16, 6, 3));
  for (int step = 0; step < 3; ++step) engine.step();
  EXPECT_EQ(engine.scheduler().stats().running, 3U);
  // The prompt once, and the tail of the two others: 16 + 2 x 4 rows.
  engine.run();
  EXPECT_EQ(engine.scheduler().stats().prompt_tokens, 24U);
}

TEST(SchedulerDeathTest, RefusesWrongCalls) {
  ToyEngine engine(small_config());
  engine.scheduler().add(request_of(1, 9, 3));
  EXPECT_DEATH(engine.scheduler().add(request_of(1, 9, 3)), "request id 0/1 is in use");
  engine.scheduler().schedule(0);
  EXPECT_DEATH(engine.scheduler().schedule(0), "all 1 plans are in flight");
  std::vector<TokenEvent> events;
  EXPECT_DEATH(engine.scheduler().complete({}, 0, &events), "0 results for 1 sequences");
  SchedulerConfig config = small_config();
  config.kv_pools = 2, config.kv_pool_tokens = 6;
  EXPECT_DEATH(make_scheduler(config), "kv_pool_tokens 6 block_size 4");
}

}  // namespace
}  // namespace chorus

// Goal: what a client sees of a request is a function of the request alone. Method: random workloads; a naive oracle
// that extends one sequence at a time; schedulers of many shapes must give the oracle's tokens and agree on everything
// else, while the toy model verifies every context position and the invariants are checked after every step.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "sched/finish.h"
#include "testing/sched_testing.h"

namespace chorus {
namespace {

constexpr std::int32_t vocab_size = 40;
constexpr std::int32_t max_model_len = 64;
using Random = std::mt19937_64;

std::uint64_t below(Random& random, std::uint64_t bound) {
  return random() % bound;
}
bool one_in(Random& random, std::uint64_t n) {
  return below(random, n) == 0;
}

SchedulerConfig base_config() {
  SchedulerConfig config;
  config.max_num_seqs = 64, config.max_model_len = max_model_len, config.block_size = 4, config.kv_blocks = 512;
  config.vocab_size = vocab_size, config.eos_token_ids = {0};
  return config;
}

// Prompts begin like one of three, so that prefixes are shared, at odd and even block ends.
Request random_request(std::uint64_t number, Random& random) {
  Request request;
  request.id = {0, number};
  const auto family = static_cast<TokenId>(below(random, 3));
  const std::uint64_t common = below(random, 30);
  for (std::uint64_t i = 0; i < common; ++i)
    request.prompt.push_back((family * 7 + static_cast<TokenId>(i)) % vocab_size);
  const std::uint64_t own = 1 + below(random, 12);
  for (std::uint64_t i = 0; i < own; ++i) request.prompt.push_back(static_cast<TokenId>(below(random, vocab_size)));
  SamplingParams& params = request.params;
  params.n = one_in(random, 3) ? 1 + static_cast<std::uint32_t>(below(random, 4)) : 1;
  params.seed = below(random, 5);
  params.max_tokens = 1 + static_cast<std::uint32_t>(below(random, one_in(random, 5) ? 200 : 20));
  params.min_tokens = one_in(random, 3) ? static_cast<std::uint32_t>(below(random, params.max_tokens)) : 0;
  params.ignore_eos = one_in(random, 4);
  if (one_in(random, 3)) params.stop_token_ids = {5, 11};
  if (one_in(random, 4)) params.logprobs = 0;
  if (one_in(random, 4)) params.prompt_logprobs = 0;
  request.priority = static_cast<std::int32_t>(below(random, 3));
  return request;
}

std::vector<Request> random_workload(std::uint64_t seed, std::size_t count) {
  Random random(seed);
  std::vector<Request> requests;
  for (std::uint64_t number = 1; number <= count; ++number) requests.push_back(random_request(number, random));
  return requests;
}

Outcome oracle(const ToyModel& model, const Request& request, std::uint32_t choice, const SchedulerConfig& config) {
  const SamplingParams& params = request.params;
  const std::int64_t limit =
      output_limit(params, static_cast<std::int64_t>(request.prompt.size()), config.max_model_len);
  const std::vector<TokenId> all_banned = banned_below_min_tokens(params, config.eos_token_ids);
  std::vector<TokenId> history = request.prompt;
  Outcome outcome;
  while (outcome.finish == FinishReason::none) {
    const bool below_min = outcome.tokens.size() < params.min_tokens;
    const TokenId token =
        model.next_token(history, request.prompt.size(), params, choice,
                         below_min ? std::span<const TokenId>(all_banned) : std::span<const TokenId>());
    history.push_back(token);
    outcome.tokens.push_back(token);
    const Finish finish = finish_check(params, config.eos_token_ids, outcome.tokens, limit);
    outcome.finish = finish.reason;
    outcome.stop_token = finish.stop_token;
  }
  return outcome;
}

// Arrivals come between steps, a few at a time, in the order given.
Outcomes serve(ToyEngine* engine, const std::vector<Request>& requests, Random& random) {
  for (std::size_t next = 0; next < requests.size();) {
    for (std::uint64_t burst = below(random, 5); burst > 0 && next < requests.size(); --burst) {
      engine->scheduler().add(requests[next++]);
    }
    if (engine->scheduler().has_work()) engine->step();
  }
  engine->run();
  return engine->outcomes();
}

Hash128 everything_collides(const std::array<std::uint64_t, 2>&, const Hash128&, std::span<const TokenId>) {
  return {};
}

struct Shape {
  const char* name;
  std::int32_t max_num_seqs, budget, kv_blocks;
  bool caching, by_priority;
  PrefixHash hash = prefix_hash;
  std::int32_t plans = 1, pools = 1, pool_tokens = 4;
  KvWindow window = {};
};

// 64 tokens are 16 blocks: with 18 nearly every sequence is preempted.
constexpr Shape shapes[] = {
    {"OneAtATime", 1, 2048, 512, true, false},
    {"OneAtATimeWithoutCache", 1, 16, 512, false, false},
    {"SmallBudget", 64, 16, 512, true, false},
    {"BudgetOfOne", 64, 1, 512, true, false},
    {"WithoutCache", 64, 2048, 512, false, false},
    {"TinyMemory", 64, 2048, 18, true, false},
    {"TinyMemoryWithoutCache", 64, 2048, 18, false, false},
    {"TinyMemorySmallBudgetPriority", 64, 16, 17, true, true},
    {"ExactlyOneFits", 8, 7, 16, true, true},
    {"HashesCollide", 64, 16, 40, true, false, everything_collides},
    {"TwoPlans", 64, 2048, 512, true, false, prefix_hash, 2},
    {"ThreePlansSmallBudget", 64, 16, 512, false, false, prefix_hash, 3},
    {"FourPlansOfOneRow", 64, 1, 512, true, true, prefix_hash, 4},
    {"TwoPlansOneAtATime", 1, 16, 512, true, false, prefix_hash, 2},
    {"ThreePlansTinyMemory", 64, 16, 18, true, true, prefix_hash, 3},
    {"FourPlansTinyMemoryWithoutCache", 64, 2048, 17, false, false, prefix_hash, 4},
    {"TwoPools", 64, 2048, 512, true, false, prefix_hash, 1, 2, 4},
    {"FourPoolsTinyMemory", 64, 16, 18, true, false, prefix_hash, 1, 4, 8},
    {"ThreePoolsTinyMemoryWithoutCache", 64, 2048, 18, false, true, prefix_hash, 1, 3, 4},
    {"TwoPlansTwoPoolsTinyMemory", 64, 16, 18, true, false, prefix_hash, 2, 2, 16},
    {"FourPlansFourPoolsExactlyOneFits", 8, 7, 16, true, true, prefix_hash, 4, 4, 4},
    {"Window", 64, 2048, 512, true, false, prefix_hash, 1, 1, 4, {1, 8}},
    {"ThreeWindowsSmallBudget", 64, 16, 512, true, false, prefix_hash, 1, 1, 4, {3, 5}},
    {"WindowOfOneKeyWithoutCache", 64, 16, 512, false, false, prefix_hash, 1, 1, 4, {2, 1}},
    {"WindowOfAllKeys", 64, 2048, 512, true, false, prefix_hash, 1, 1, 4, {1, 64}},
    {"WindowTinyMemory", 64, 4, 22, true, false, prefix_hash, 1, 1, 4, {1, 6}},
    {"WindowsTinyMemoryWithoutCache", 64, 4, 26, false, false, prefix_hash, 1, 1, 4, {2, 6}},
    {"WindowsExactlyOneFits", 8, 7, 26, true, true, prefix_hash, 1, 1, 4, {2, 6}},
    {"WindowHashesCollide", 64, 16, 60, true, false, everything_collides, 1, 1, 4, {1, 9}},
    {"ThreePlansWindowsTinyMemory", 64, 4, 26, true, true, prefix_hash, 3, 1, 4, {2, 6}},
};

SchedulerConfig config_of(const Shape& shape) {
  SchedulerConfig config = base_config();
  config.max_num_seqs = shape.max_num_seqs, config.max_num_batched_tokens = shape.budget;
  config.kv_blocks = shape.kv_blocks, config.enable_prefix_caching = shape.caching;
  config.by_priority = shape.by_priority;
  config.kv_window = shape.window;
  config.plans_in_flight_max = shape.plans, config.kv_pools = shape.pools, config.kv_pool_tokens = shape.pool_tokens;
  return config;
}

class SchedulerProperty : public testing::TestWithParam<Shape> {};

TEST_P(SchedulerProperty, OutputIsAFunctionOfTheRequest) {
  std::uint64_t preemptions = 0;
  for (std::uint64_t seed = 1; seed <= 12; ++seed) {
    std::vector<Request> requests = random_workload(seed, 40);
    Random random(seed);
    ToyEngine wide(base_config());
    const Outcomes expected = serve(&wide, requests, random);
    for (const Request& request : requests) {
      for (std::uint32_t choice = 0; choice < request.params.n; ++choice) {
        const Outcome truth = oracle(wide.model(), request, choice, base_config());
        const Outcome& served = expected.at({request.id, choice});
        ASSERT_EQ(served.tokens, truth.tokens);
        ASSERT_EQ(served.finish, truth.finish);
        ASSERT_EQ(served.stop_token, truth.stop_token);
        ASSERT_EQ(served.logprobs.size(), request.params.logprobs ? truth.tokens.size() : 0);
        ASSERT_EQ(served.prompt_logprobs.size(),
                  request.params.prompt_logprobs && choice == 0 ? request.prompt.size() - 1 : 0);
      }
    }
    ToyEngine shaped(config_of(GetParam()), GetParam().hash);
    std::ranges::shuffle(requests, random);
    ASSERT_EQ(serve(&shaped, requests, random), expected) << "seed " << seed;
    preemptions += shaped.scheduler().stats().preemptions;
    // Whose end has not been told: those that ended after the last plan.
    ASSERT_LE(shaped.pipeline().known(), static_cast<std::size_t>(GetParam().plans * GetParam().max_num_seqs));
    shaped.scheduler().add(random_workload(seed, 1)[0]);
    shaped.begin();
    ASSERT_EQ(shaped.pipeline().known(), shaped.plan().sequences.size()) << "every end is told in the next plan";
  }
  if (GetParam().kv_blocks <= 26 && GetParam().max_num_seqs > 1) {
    EXPECT_GT(preemptions, 0U) << "the shape proves nothing";
  }
}

// Random aborts of requests and choices; a part of the aborted ones is added again with what was emitted, as after the
// loss of a replica. What was not aborted, or went on, ends as if nothing had happened; what was aborted is a prefix of
// that.
TEST_P(SchedulerProperty, AbortsAndResumesChangeNothingElse) {
  for (std::uint64_t seed = 1; seed <= 12; ++seed) {
    const std::vector<Request> requests = random_workload(seed + 100, 40);
    Random random(seed);
    ToyEngine engine(config_of(GetParam()), GetParam().hash);
    for (const Request& request : requests) engine.scheduler().add(request);
    const auto outcome = [&](const Request& request, std::uint32_t choice) -> Outcome& {
      return engine.outcomes()[{request.id, choice}];
    };
    std::map<std::pair<RequestId, std::uint32_t>, bool> aborted;
    while (engine.scheduler().has_work()) {
      engine.step();
      if (!one_in(random, 4)) continue;
      const Request& request = requests[below(random, requests.size())];
      const auto choice = static_cast<std::uint32_t>(below(random, request.params.n));
      if (one_in(random, 3)) {
        engine.scheduler().abort_choice(request.id, choice);
        aborted[{request.id, choice}] = true;
        continue;
      }
      engine.scheduler().abort(request.id);
      Request rest = request;
      for (std::uint32_t i = 0; i < request.params.n; ++i) {
        if (aborted[{request.id, i}] || outcome(request, i).finish != FinishReason::none) continue;
        rest.choices.push_back({i, outcome(request, i).tokens});
        rest.skip_prompt_logprobs |= !outcome(request, 0).prompt_logprobs.empty();
      }
      if (!rest.choices.empty()) engine.scheduler().add(rest);
    }
    engine.run();
    for (const Request& request : requests) {
      for (std::uint32_t choice = 0; choice < request.params.n; ++choice) {
        const Outcome truth = oracle(engine.model(), request, choice, base_config());
        const Outcome& seen = outcome(request, choice);
        if (seen.finish != FinishReason::none) {
          ASSERT_EQ(seen.tokens, truth.tokens) << "seed " << seed << " request " << request.id.number << ":" << choice;
          ASSERT_EQ(seen.finish, truth.finish);
        } else {
          ASSERT_TRUE((aborted[{request.id, choice}]));
          ASSERT_TRUE(std::equal(seen.tokens.begin(), seen.tokens.end(), truth.tokens.begin()));
        }
      }
    }
  }
}

// The same calls give the same plans.
TEST_P(SchedulerProperty, PlansAreDeterministic) {
  std::vector<std::string> runs;
  for (int run = 0; run < 2; ++run) {
    Random random(5);
    SchedulerConfig config = config_of(GetParam());
    ToyEngine engine(config, GetParam().hash);
    for (const Request& request : random_workload(9, 30)) engine.scheduler().add(request);
    std::string& plans = runs.emplace_back();
    while (engine.scheduler().has_work()) {
      engine.step();
      for (const SequencePlan& plan : engine.plan().sequences) {
        plans += fmt::format("{}:{}+{}@{} ", plan.sequence, plan.start, plan.count, plan.block_table.size());
      }
    }
  }
  EXPECT_EQ(runs[0], runs[1]);
}

INSTANTIATE_TEST_SUITE_P(Shapes, SchedulerProperty, testing::ValuesIn(shapes),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace chorus

#include "workload.h"

#include <algorithm>
#include <utility>

namespace chorus::sim {
namespace {

std::vector<TokenId> random_tokens(Random& random, std::int64_t count) {
  std::vector<TokenId> tokens;
  for (std::int64_t i = 0; i < count; ++i) tokens.push_back(static_cast<TokenId>(random.between(0, vocab_size - 1)));
  return tokens;
}

// Half of the prompts begin as another does, so that the prefix cache has something to share.
std::vector<TokenId> random_prompt(Random& random, const std::vector<std::vector<TokenId>>& prefixes) {
  if (random.chance(0.5)) return random_tokens(random, random.between(1, prompt_max));
  std::vector<TokenId> prompt = prefixes[random.next() % prefixes.size()];
  const auto tail = random_tokens(random, random.between(0, prompt_max - static_cast<std::int64_t>(prompt.size())));
  prompt.insert(prompt.end(), tail.begin(), tail.end());
  return prompt;
}

SamplingParams random_params(Random& random) {
  SamplingParams params;
  params.seed = random.next();
  params.n = random.chance(0.7) ? 1 : static_cast<std::uint32_t>(random.between(2, 3));
  params.max_tokens = static_cast<std::uint32_t>(random.between(1, output_max));
  if (random.chance(0.3)) params.min_tokens = static_cast<std::uint32_t>(random.between(0, params.max_tokens));
  params.ignore_eos = random.chance(0.2);
  if (random.chance(0.3)) {
    params.stop_token_ids = random_tokens(random, random.between(1, 3));
    std::sort(params.stop_token_ids.begin(), params.stop_token_ids.end());
    params.stop_token_ids.erase(std::unique(params.stop_token_ids.begin(), params.stop_token_ids.end()),
                                params.stop_token_ids.end());
  }
  if (random.chance(0.1)) params.allowed_token_ids = random_tokens(random, random.between(1, 3));
  if (random.chance(0.1)) params.bad_words = {random_tokens(random, 2), random_tokens(random, 1)};
  if (random.chance(0.1)) params.logprobs = 0;
  if (random.chance(0.1)) params.prompt_logprobs = 0;
  return params;
}

void spoil(Random& random, Job* job) {
  job->refused = true;
  std::vector<TokenId>& prompt = job->request.prompt;
  switch (random.between(0, 2)) {
    case 0:
      prompt.clear();
      break;
    case 1:
      prompt = random_tokens(random, max_model_len + random.between(0, 5));
      break;
    default:
      prompt.back() = vocab_size;
      break;
  }
}

}  // namespace

std::vector<Job> make_workload(std::uint64_t seed, std::size_t count, Nanoseconds gap_mean, double poison) {
  Random random(seed);
  std::vector<std::vector<TokenId>> prefixes;
  for (int i = 0; i < 4; ++i) prefixes.push_back(random_tokens(random, random.between(4, prompt_max)));
  std::vector<Job> jobs;
  Nanoseconds now = 0;
  std::int64_t burst = 0;
  for (std::size_t i = 0; i < count; ++i) {
    Job job;
    if (burst > 0) {
      --burst;
    } else {
      now += random.exponential(static_cast<double>(gap_mean));
      if (random.chance(0.02)) burst = random.between(5, 40);
    }
    job.arrival = now;
    job.number = i + 1;
    job.request.prompt = random_prompt(random, prefixes);
    job.request.params = random_params(random);
    job.request.priority = static_cast<std::int32_t>(random.between(-1, 1));
    if (random.chance(0.01)) spoil(random, &job);
    job.poison = !job.refused && random.chance(poison);
    if (random.chance(0.03)) job.abort_after = random.exponential(30e6);
    for (std::uint32_t choice = 0; choice < job.request.params.n; ++choice) {
      if (random.chance(0.05)) job.stops[choice] = static_cast<std::uint32_t>(random.between(1, 6));
    }
    jobs.push_back(std::move(job));
  }
  return jobs;
}

}  // namespace chorus::sim

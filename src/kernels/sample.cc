#include "kernels/sample.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>

#include "base/check.h"
#include "base/philox.h"
#include "kernels/isa.h"
#include "kernels/sample_passes.h"

namespace chorus {
namespace {

constexpr std::int32_t in_prompt = 1 << 30;  // beside a count of output tokens
constexpr float infinity = std::numeric_limits<float>::infinity();

bool is_id(std::int32_t token, std::size_t vocabulary) {
  return token >= 0 && static_cast<std::size_t>(token) < vocabulary;
}

// An integer that orders floats as their values do (-0 as 0, NaN beyond the infinities): its maxima vectorise, and it
// orders any row totally.
std::int32_t key_of(float value) {
  const auto bits = std::bit_cast<std::int32_t>(value + 0.0F);
  return bits ^ ((bits >> 31) & 0x7fffffff);
}

// Weights are in [0, 1]: 64 bins an octave.
std::size_t weight_bin(float weight) {
  return std::bit_cast<std::uint32_t>(weight) >> 17;
}
constexpr std::size_t weight_bins = (0x3f800000U >> 17) + 1;

double sum_in_order(std::span<const float> weights) {
  double sum = 0;
  for (const float weight : weights) sum += static_cast<double>(weight);
  return sum;
}

bool changes_logits(const SampleInput& input) {
  return !input.banned.empty() || !input.allowed.empty() || !input.bad_words.empty() || !input.logit_bias.empty() ||
         input.repetition_penalty != 1.0 ||
         (!input.output.empty() && (input.presence_penalty != 0.0 || input.frequency_penalty != 0.0));
}

// vLLM's order and arithmetic (float32): repetition over prompt and output, then frequency and presence over the
// output.
float penalised(const SampleInput& input, std::int32_t count, float logit) {
  const auto repetition = static_cast<float>(input.repetition_penalty);
  logit = logit > 0 ? logit / repetition : logit * repetition;
  const std::int32_t outputs = count & ~in_prompt;
  if (outputs == 0) return logit;
  logit -= static_cast<float>(input.frequency_penalty) * static_cast<float>(outputs);
  return logit - static_cast<float>(input.presence_penalty);
}

void copy_allowed(const SampleInput& input, std::span<float> work) {
  if (input.allowed.empty()) {
    std::copy(input.logits.begin(), input.logits.end(), work.begin());
    return;
  }
  std::fill(work.begin(), work.end(), -infinity);
  for (const std::int32_t token : input.allowed) {
    if (!is_id(token, work.size())) continue;
    work[static_cast<std::size_t>(token)] = input.logits[static_cast<std::size_t>(token)];
  }
}

float logprob_of(std::span<const float> logits, std::int32_t token, const LogNormaliser& sum) {
  const double above = static_cast<double>(logits[static_cast<std::size_t>(token)]) - sum.largest;
  return static_cast<float>(above - sum.log_sum);
}

}  // namespace

const SamplePasses& sample_passes_for(Isa isa) {
  switch (isa) {
    case Isa::scalar:
      return sample_passes_scalar();
    case Isa::avx2_f32:
      return sample_passes_avx2();
    case Isa::avx512_bf16:
    case Isa::amx_bf16:
      return sample_passes_avx512();
    case Isa::cuda_sm90:
      break;
  }
  return sample_passes_scalar();
}

Sampler::Sampler(Isa isa, std::int32_t vocab_size) : passes_(&sample_passes_for(isa)) {
  const auto size = static_cast<std::size_t>(vocab_size);
  work_.resize(size);
  counts_.resize(size);
  order_.reserve(size);
  weights_.reserve(size);
  block_largest_.resize((size + sample_block - 1) / sample_block);
  partial_.reserve(size);
  masses_.resize(weight_bins);
}

SampleOutput Sampler::sample(const SampleInput& input) {
  CHECK(input.logits.size() == work_.size(), "{} logits for a vocabulary of {}", input.logits.size(), work_.size());
  std::span<const float> logits = input.logits;
  Scan scanned = scan(logits);
  if (scanned.not_a_number) return {-1, true};
  if (changes_logits(input)) {
    copy_allowed(input, work_);
    apply_bad_words(input);
    apply_bans_and_bias(input);
    apply_penalties(input);
    logits = work_;
    scanned = scan(logits);
    if (scanned.not_a_number) return {-1, true};
  }
  const std::int32_t best = first_largest(logits, scanned.largest);
  if (input.temperature <= 0.0) return {best, false};

  const bool all = input.top_k <= 0 || static_cast<std::size_t>(input.top_k) >= logits.size();
  if (all) {
    order_.resize(logits.size());
    std::iota(order_.begin(), order_.end(), 0);
  } else {
    select_top(logits, static_cast<std::size_t>(input.top_k));
    std::sort(order_.begin(), order_.end());
  }
  // Bounds that keep 0 / temperature and -inf / temperature numbers.
  const float temperature = std::clamp(static_cast<float>(input.temperature), 1e-30F, 1e30F);
  weigh(logits, logits[static_cast<std::size_t>(best)], temperature, static_cast<float>(input.min_p));
  if (input.top_p < 1.0) keep_mass(input.top_p);
  return {draw(philox_uniform(input.seed, input.choice, input.output.size())), false};
}

float Sampler::logprobs(std::span<const float> logits, std::int32_t token, std::uint32_t top,
                        std::vector<SampledLogprob>* out_top) {
  check_token(logits, token);
  const auto sum = normaliser(logits);
  const std::size_t count = std::min<std::size_t>(top, logits.size());
  out_top->resize(count);
  if (count > 0) select_top(logits, count);
  for (std::size_t i = 0; i < count; ++i) (*out_top)[i] = {order_[i], logprob_of(logits, order_[i], sum)};
  return logprob_of(logits, token, sum);
}

float Sampler::logprobs_of(std::span<const float> logits, std::int32_t token, std::span<const std::int32_t> wanted,
                           std::vector<SampledLogprob>* out_wanted) {
  check_token(logits, token);
  const auto sum = normaliser(logits);
  out_wanted->clear();
  for (const std::int32_t id : wanted) {
    if (is_id(id, logits.size())) out_wanted->push_back({id, logprob_of(logits, id, sum)});
  }
  return logprob_of(logits, token, sum);
}

void Sampler::check_token(std::span<const float> logits, std::int32_t token) const {
  CHECK(logits.size() == work_.size() && is_id(token, logits.size()), "{} logits for a vocabulary of {}, token {}",
        logits.size(), work_.size(), token);
}

LogNormaliser Sampler::normaliser(std::span<const float> logits) {
  const float largest = logits[static_cast<std::size_t>(first_largest(logits, scan(logits).largest))];
  order_.resize(logits.size());
  std::iota(order_.begin(), order_.end(), 0);
  weigh(logits, largest, 1.0F, 0.0F);
  return {static_cast<double>(largest), std::log(sum_in_order(weights_))};
}

// Not a number: a NaN anywhere, +inf, or nothing but -inf.
Sampler::Scan Sampler::scan(std::span<const float> logits) {
  const SampleScan found = passes_->scan(logits.data(), logits.size(), block_largest_.data());
  return {found.largest, found.has_nan || found.largest <= key_of(-infinity) || found.largest >= key_of(infinity)};
}

// The lowest token with the largest logit of the last scan.
std::int32_t Sampler::first_largest(std::span<const float> logits, std::int32_t key) const {
  const auto block = std::find(block_largest_.begin(), block_largest_.end(), key) - block_largest_.begin();
  std::size_t token = static_cast<std::size_t>(block) * sample_block;
  while (key_of(logits[token]) != key) ++token;
  return static_cast<std::int32_t>(token);
}

// On work_, which holds the logits. A run is looked for in the output alone, as in vLLM.
void Sampler::apply_bad_words(const SampleInput& input) {
  for (const std::vector<std::int32_t>& run : input.bad_words) {
    if (run.empty() || run.size() > input.output.size() + 1 || !is_id(run.back(), work_.size())) continue;
    const auto before = std::span(run).first(run.size() - 1);
    if (!std::ranges::equal(before, input.output.last(before.size()))) continue;
    work_[static_cast<std::size_t>(run.back())] = -infinity;
  }
}

// On work_. A ban outlives what follows it: -inf stays -inf under a bias and under penalties.
void Sampler::apply_bans_and_bias(const SampleInput& input) {
  for (const std::int32_t token : input.banned) {
    if (is_id(token, work_.size())) work_[static_cast<std::size_t>(token)] = -infinity;
  }
  for (const auto& [token, bias] : input.logit_bias) {
    if (is_id(token, work_.size())) work_[static_cast<std::size_t>(token)] += bias;
  }
}

// On work_, visiting each token of the sequence once.
void Sampler::apply_penalties(const SampleInput& input) {
  for (const std::int32_t token : input.output) {
    if (is_id(token, counts_.size())) ++counts_[static_cast<std::size_t>(token)];
  }
  const auto prompt = input.repetition_penalty != 1.0 ? input.prompt : std::span<const std::int32_t>();
  for (const std::int32_t token : prompt) {
    if (is_id(token, counts_.size())) counts_[static_cast<std::size_t>(token)] |= in_prompt;
  }
  for (const auto tokens : {input.output, prompt}) {
    for (const std::int32_t token : tokens) {
      if (!is_id(token, counts_.size())) continue;
      const auto id = static_cast<std::size_t>(token);
      if (counts_[id] != 0) work_[id] = penalised(input, counts_[id], work_[id]);
      counts_[id] = 0;
    }
  }
}

// order_ = the `count` tokens with the largest logits, largest first, ties by lower id. Of the last scanned logits.
void Sampler::select_top(std::span<const float> logits, std::size_t count) {
  // The count-th largest block maximum is a floor: at least `count` logits reach it, and usually few more.
  std::int32_t floor = std::numeric_limits<std::int32_t>::min();
  if (count < block_largest_.size()) {
    partial_.assign(block_largest_.begin(), block_largest_.end());
    const auto nth = partial_.begin() + static_cast<std::ptrdiff_t>(count) - 1;
    std::nth_element(partial_.begin(), nth, partial_.end(), std::greater<>());
    floor = *nth;
  }
  order_.clear();
  for (std::size_t block = 0; block < block_largest_.size(); ++block) {
    if (block_largest_[block] < floor) continue;
    const std::size_t end = std::min(logits.size(), (block + 1) * sample_block);
    for (std::size_t i = block * sample_block; i < end; ++i) {
      if (key_of(logits[i]) >= floor) order_.push_back(static_cast<std::int32_t>(i));
    }
  }
  const auto before = [&](std::int32_t a, std::int32_t b) {
    const std::int32_t left = key_of(logits[static_cast<std::size_t>(a)]),
                       right = key_of(logits[static_cast<std::size_t>(b)]);
    return left != right ? left > right : a < b;
  };
  const auto nth = order_.begin() + static_cast<std::ptrdiff_t>(count);
  if (nth != order_.end()) std::nth_element(order_.begin(), nth, order_.end(), before);
  order_.resize(count);
  std::sort(order_.begin(), order_.end(), before);
}

// weights_ of the candidates: e^((logit - largest) / temperature), so that the most likely one has weight 1, and min_p
// is relative to that. Too unlikely ones get weight 0, which is never drawn.
void Sampler::weigh(std::span<const float> logits, float largest, float temperature, float min_p) {
  weights_.resize(order_.size());
  if (order_.size() == logits.size()) {
    passes_->weigh(logits.data(), logits.size(), largest, temperature, min_p, weights_.data());
    return;
  }
  for (std::size_t i = 0; i < order_.size(); ++i) weights_[i] = logits[static_cast<std::size_t>(order_[i])];
  passes_->weigh(weights_.data(), weights_.size(), largest, temperature, min_p, weights_.data());
}

// Keeps the fewest most likely candidates (ties by lower id) whose weights reach top_p of the sum, in ascending id.
// Without sorting all: weights are summed by bin, and only the bin in which the border lies is sorted.
void Sampler::keep_mass(double top_p) {
  std::fill(masses_.begin(), masses_.end(), 0.0);
  for (const float weight : weights_) {
    if (weight > 0) masses_[weight_bin(weight)] += static_cast<double>(weight);
  }
  const double wanted = top_p * std::accumulate(masses_.rbegin(), masses_.rend(), 0.0);
  double mass = 0;
  std::size_t border = weight_bins - 1;
  while (border > 0 && mass + masses_[border] < wanted) mass += masses_[border--];

  partial_.clear();
  for (std::size_t i = 0; i < weights_.size(); ++i) {
    if (weight_bin(weights_[i]) == border) partial_.push_back(static_cast<std::int32_t>(i));
  }
  const auto weight_at = [&](std::int32_t i) { return weights_[static_cast<std::size_t>(i)]; };
  std::sort(partial_.begin(), partial_.end(), [&](std::int32_t a, std::int32_t b) {
    return weight_at(a) != weight_at(b) ? weight_at(a) > weight_at(b) : a < b;
  });
  float least = 0;
  std::int32_t last = std::numeric_limits<std::int32_t>::max();
  for (const std::int32_t i : partial_) {
    least = weight_at(i), last = i;
    mass += static_cast<double>(least);
    if (mass >= wanted) break;
  }
  std::size_t kept = 0;
  for (std::size_t i = 0; i < weights_.size(); ++i) {
    const float weight = weights_[i];
    const bool keep = weight > least || (weight == least && static_cast<std::int32_t>(i) <= last);
    order_[kept] = order_[i];
    weights_[kept] = weight;
    kept += keep ? 1 : 0;
  }
  order_.resize(kept);
  weights_.resize(kept);
}

// Inverse CDF over the candidates, which stand in ascending id. Should rounding leave the sum short: the last possible
// one.
std::int32_t Sampler::draw(double uniform) const {
  const double target = uniform * sum_in_order(weights_);
  double cumulative = 0;
  std::int32_t last = -1;
  for (std::size_t i = 0; i < weights_.size(); ++i) {
    cumulative += static_cast<double>(weights_[i]);
    if (cumulative > target) return order_[i];
    if (weights_[i] > 0) last = order_[i];
  }
  return last;
}

}  // namespace chorus

#include "layers/moe_routing.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/check.h"

namespace chorus {
namespace {

constexpr float minus_infinity = -std::numeric_limits<float>::infinity();

std::size_t index_of_largest(std::span<const float> values) {
  std::size_t best = 0;
  for (std::size_t i = 1; i < values.size(); ++i) {
    if (values[i] > values[best]) best = i;
  }
  return best;
}

void softmax_in_place(std::span<float> values) {
  const float largest = values[index_of_largest(values)];
  float sum = 0;
  for (float& value : values) {
    value = std::exp(value - largest);
    sum += value;
  }
  for (float& value : values) value /= sum;
}

void route_softmax(std::span<float> logits, bool normalize, std::span<ExpertChoice> choices) {
  softmax_in_place(logits);
  for (ExpertChoice& choice : choices) {
    const std::size_t best = index_of_largest(logits);
    choice = {static_cast<std::int32_t>(best), logits[best]};
    logits[best] = minus_infinity;
  }
  if (!normalize) return;
  float sum = 0;
  for (const ExpertChoice& choice : choices) sum += choice.weight;
  for (ExpertChoice& choice : choices) choice.weight /= sum;
}

// The probability of the best of `scores` among those within 2 * jitter of it, relative to their own size. `sizes` are
// the unmasked scores: an already chosen expert (-inf in `scores`) is out.
ExpertChoice best_within_threshold(std::span<const float> scores, std::span<const float> sizes, double jitter) {
  const std::size_t best = index_of_largest(scores);
  float sum = 0;
  for (std::size_t i = 0; i < scores.size(); ++i) {
    if (scores[i] == minus_infinity) continue;
    const float factor = std::max(std::abs(sizes[i]), scores[best]);
    const bool far = (scores[best] - sizes[i]) / factor > static_cast<float>(2 * jitter);
    if (!far) sum += std::exp(scores[i] - scores[best]);
  }
  return {static_cast<std::int32_t>(best), 1.0F / sum};
}

void route_sparse_mixer(std::span<float> logits, double jitter, std::span<ExpertChoice> choices) {
  CHECK(choices.size() == 2 && logits.size() <= 1024, "the sparse mixer chooses 2 of at most 1024 experts");
  float masked[1024];
  std::copy(logits.begin(), logits.end(), masked);
  const std::span<float> scores(masked, logits.size());
  choices[0] = best_within_threshold(scores, logits, jitter);
  scores[static_cast<std::size_t>(choices[0].expert)] = minus_infinity;
  choices[1] = best_within_threshold(scores, logits, jitter);
}

// What a group is chosen by: its best score, or the sum of its two best.
float score_of_group(std::span<const float> scores, bool two) {
  float best = minus_infinity, second = minus_infinity;
  for (const float score : scores) {
    second = std::max(second, std::min(best, score));
    best = std::max(best, score);
  }
  return two && scores.size() > 1 ? best + second : best;
}

// Leaves the scores of the best groups alone, and makes the others' minus infinity.
void keep_groups(const MoeRouter& router, bool by_two, std::span<float> scores) {
  const auto groups = static_cast<std::size_t>(router.groups), size = scores.size() / groups;
  if (router.kept_groups == router.groups) return;
  float of_group[1024];
  for (std::size_t g = 0; g < groups; ++g) of_group[g] = score_of_group(scores.subspan(g * size, size), by_two);
  const std::span<float> left(of_group, groups);
  bool kept[1024] = {};
  for (int i = 0; i < router.kept_groups; ++i) {
    const std::size_t best = index_of_largest(left);
    kept[best] = true;
    left[best] = minus_infinity;
  }
  for (std::size_t g = 0; g < groups; ++g) {
    if (!kept[g]) std::ranges::fill(scores.subspan(g * size, size), minus_infinity);
  }
}

void route_groups(const MoeRouter& router, const float* correction, std::span<float> weights,
                  std::span<ExpertChoice> choices) {
  const bool is_sigmoid = router.routing == MoeRouting::group_sigmoid;
  if (is_sigmoid) {
    for (float& weight : weights) weight = 1.0F / (1.0F + std::exp(-weight));
  } else {
    softmax_in_place(weights);
  }
  float masked[1024];
  const std::span<float> scores(masked, weights.size());
  for (std::size_t i = 0; i < weights.size(); ++i) scores[i] = weights[i] + (correction != nullptr ? correction[i] : 0);
  keep_groups(router, is_sigmoid, scores);
  float sum = 0;
  for (ExpertChoice& choice : choices) {
    const std::size_t best = index_of_largest(scores);
    choice = {static_cast<std::int32_t>(best), weights[best]};
    scores[best] = minus_infinity;
    sum += weights[best];
  }
  const float scale = static_cast<float>(router.scale) / (router.normalize ? sum + 1e-20F : 1.0F);
  for (ExpertChoice& choice : choices) choice.weight *= scale;
}

}  // namespace

void route(const MoeRouter& router, const float* correction, std::span<float> logits, std::span<ExpertChoice> choices) {
  CHECK(choices.size() <= logits.size() && logits.size() <= 1024, "{} experts of {}", choices.size(), logits.size());
  switch (router.routing) {
    case MoeRouting::softmax_top_k:
      route_softmax(logits, false, choices);
      break;
    case MoeRouting::softmax_top_k_normalized:
      route_softmax(logits, true, choices);
      break;
    case MoeRouting::sparse_mixer:
      route_sparse_mixer(logits, router.jitter, choices);
      break;
    case MoeRouting::group_softmax:
    case MoeRouting::group_sigmoid:
      route_groups(router, correction, logits, choices);
      break;
  }
  std::sort(choices.begin(), choices.end(),
            [](const ExpertChoice& a, const ExpertChoice& b) { return a.expert < b.expert; });
}

}  // namespace chorus

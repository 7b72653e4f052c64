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

}  // namespace

void route(MoeRouting routing, std::span<float> logits, double jitter, std::span<ExpertChoice> choices) {
  CHECK(choices.size() <= logits.size(), "{} experts of {}", choices.size(), logits.size());
  switch (routing) {
    case MoeRouting::softmax_top_k:
      route_softmax(logits, false, choices);
      break;
    case MoeRouting::softmax_top_k_normalized:
      route_softmax(logits, true, choices);
      break;
    case MoeRouting::sparse_mixer:
      route_sparse_mixer(logits, jitter, choices);
      break;
  }
  std::sort(choices.begin(), choices.end(),
            [](const ExpertChoice& a, const ExpertChoice& b) { return a.expert < b.expert; });
}

}  // namespace chorus

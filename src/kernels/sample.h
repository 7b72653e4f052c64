// From one row of logits to one token, by the rules of the promise: ties go to the lowest id, sums are in double in an
// order that the logits alone decide, and the random number is Philox(seed, choice) at the output position. The
// arithmetic is plain C++ without reassociation: the same bits on every processor.
//
// Order, as in vLLM (docs/numerics.md): allowed tokens, bad words, bans, logit bias, repetition, frequency and presence
// penalties; temperature 0 takes the largest. Else temperature, min_p, top_k (exactly k stay), top_p (the fewest most
// likely tokens that reach it, at least one), and the inverse CDF in ascending token id. Tokens outside the vocabulary
// in any list are passed over.
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "kernels/isa.h"

namespace chorus {

// Parameters as plain numbers (request/request.h says what they mean), and the sequence so far.
struct SampleInput {
  std::span<const float> logits;  // [vocab], raw
  double temperature = 1.0;
  double top_p = 1.0;
  std::int32_t top_k = 0;
  double min_p = 0.0;
  double presence_penalty = 0.0;
  double frequency_penalty = 0.0;
  double repetition_penalty = 1.0;
  std::span<const std::pair<std::int32_t, float>> logit_bias;
  std::span<const std::int32_t> prompt;                  // for the repetition penalty
  std::span<const std::int32_t> output;                  // for all penalties
  std::span<const std::int32_t> banned;                  // set to -inf (EOS and stop ids below min_tokens)
  std::span<const std::int32_t> allowed;                 // all others are set to -inf; empty: none is
  std::span<const std::vector<std::int32_t>> bad_words;  // the last of a run is set to -inf behind the others of it
  std::uint64_t seed = 0;
  std::uint32_t choice = 0;
};

struct SampledLogprob {
  std::int32_t token = 0;
  float logprob = 0;
};

struct SampleOutput {
  std::int32_t token = -1;
  bool not_a_number = false;  // a NaN, or nothing but -inf: the caller fails this request alone
};

// A logprob is (logit - largest) - log_sum.
struct LogNormaliser {
  double largest = 0, log_sum = 0;
};

struct SamplePasses;

// One per thread; keeps its buffers between calls, so that a warmed-up step allocates nothing.
class Sampler {
 public:
  // `isa`: the numerics profile's. Every one gives the same bits.
  Sampler(Isa isa, std::int32_t vocab_size);
  SampleOutput sample(const SampleInput& input);
  // Logprob of `token` (natural log of the softmax of the raw logits) and the `top` most likely tokens, most likely
  // first, ties by lower id. `out_top` is resized. Returns the logprob of `token`.
  float logprobs(std::span<const float> logits, std::int32_t token, std::uint32_t top,
                 std::vector<SampledLogprob>* out_top);
  // The same of the tokens `wanted`, in their order, in the place of the most likely ones.
  float logprobs_of(std::span<const float> logits, std::int32_t token, std::span<const std::int32_t> wanted,
                    std::vector<SampledLogprob>* out_wanted);

 private:
  struct Scan {
    std::int32_t largest = 0;  // key of the largest logit (see sample.cc)
    bool not_a_number = false;
  };
  Scan scan(std::span<const float> logits);
  std::int32_t first_largest(std::span<const float> logits, std::int32_t key) const;
  void apply_bans_and_bias(const SampleInput& input);
  void apply_bad_words(const SampleInput& input);
  void check_token(std::span<const float> logits, std::int32_t token) const;
  LogNormaliser normaliser(std::span<const float> logits);
  void apply_penalties(const SampleInput& input);
  void select_top(std::span<const float> logits, std::size_t count);
  void weigh(std::span<const float> logits, float largest, float temperature, float min_p);
  void keep_mass(double top_p);
  std::int32_t draw(double uniform) const;

  const SamplePasses* passes_;
  std::vector<float> work_;                  // logits with bans, bias and penalties
  std::vector<std::int32_t> counts_;         // of output tokens, zero between calls
  std::vector<std::int32_t> order_;          // candidate tokens
  std::vector<float> weights_;               // weights_[i] of candidate order_[i]
  std::vector<std::int32_t> block_largest_;  // key of each block of logits, from the last scan
  std::vector<std::int32_t> partial_;
  std::vector<double> masses_;  // total weight of the candidates of each weight bin
};

}  // namespace chorus
